/** When a group session ends and a new one begins. */
import { Form } from "./form";
import type { JsonObject } from "./json";

const defaultMessages = 100;
const defaultPeriodMs = 7 * 24 * 3600 * 1000;
/** A room may ask for more frequent rotation, but not for so much that it costs everybody. */
const leastMessages = 10;
const leastPeriodMs = 3600 * 1000;

export interface RotationFacts {
  messages: number;
  ageMs: number;
  /** The content of the room's m.room.encryption; its bounds only tighten. */
  encryption: JsonObject;
  /** Somebody left, was removed or lost an invitation. */
  left: boolean;
  /** After a gap in what is known, membership changed in a way that may hide a leave. */
  limited: boolean;
  /** A device that was given the session is no longer a key-holder. */
  lostHolder: boolean;
  /** Encryption, history visibility or membership rules of the room changed. */
  rulesChanged: boolean;
}

export type RotationReason = "left" | "limited" | "lost_holder" | "rules_changed" | "messages" | "age" | "";

export function rotationReason(facts: RotationFacts): RotationReason {
  if (facts.left) return "left";
  if (facts.limited) return "limited";
  if (facts.lostHolder) return "lost_holder";
  if (facts.rulesChanged) return "rules_changed";
  if (facts.messages >= tightened(facts.encryption, "rotation_period_msgs", leastMessages, defaultMessages))
    return "messages";
  if (facts.ageMs >= tightened(facts.encryption, "rotation_period_ms", leastPeriodMs, defaultPeriodMs)) return "age";
  return "";
}

function tightened(encryption: JsonObject, name: string, least: number, most: number): number {
  const form = new Form(encryption);
  const value = form.has(name) ? encryption[name] : most;
  return typeof value === "number" ? Math.min(Math.max(value, least), most) : most;
}
