/** What a sign-in or a registration gives, and what it is asked with. */
import { ApiError } from "../http";
import type { Credentials } from "../types";

/** The device that a session is to be of. */
export interface WantedDevice {
  name: string;
  /** Of a device that signs in again after the server has ended its session softly. */
  id?: string;
}

export function deviceBody({ name, id }: WantedDevice): Record<string, unknown> {
  return { initial_device_display_name: name, ...(id === undefined ? {} : { device_id: id }) };
}

export function readCredentials(baseUrl: string, answer: Record<string, unknown>): Credentials {
  const { user_id: userId, device_id: deviceId, access_token: accessToken } = answer;
  if (typeof userId !== "string" || typeof deviceId !== "string" || typeof accessToken !== "string") {
    throw new ApiError(500, { error: "The answer of the server lacks what a session needs." });
  }
  return { baseUrl: baseUrl.replace(/\/+$/, ""), userId, deviceId, accessToken };
}
