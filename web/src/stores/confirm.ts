/** What the person is asked, to confirm a request: one at a time, shown by one dialog wherever the request came from. */
import {
  type Answer,
  type Asker,
  Cancelled,
  type Confirm,
  confirmed,
  type FactorType,
  type Observable,
  type PasskeyOutcome,
  type Refusal,
  type Step,
  usePasskey,
} from "../sdk";
import { cell } from "./observable";

export type { Answer, FactorType, Refusal, Step };
export { Cancelled };

/** What the dialog shows. */
export interface Asking {
  /** Whose account it is. */
  userId: string;
  /** Any of them will do; there is at least one. */
  steps: Step[];
  refusal: Refusal | null;
  /** The answer is on its way. */
  busy: boolean;
  answer(answer: Answer): void;
  /** Asks the browser for a passkey, and answers with it. Gives what stands in the way, or null. */
  answerWithPasskey(): Promise<Exclude<PasskeyOutcome, { ok: true }>["problem"] | null>;
  cancel(): void;
}

export interface Confirming {
  /** Null while nothing is asked. */
  readonly asking: Observable<Asking | null>;
  readonly confirm: Confirm;
}

/** `askPasskey` is the browser; only tests give another. */
export function createConfirming(askPasskey: typeof usePasskey = usePasskey): Confirming {
  const asking = cell<Asking | null>(null);
  let turn: Promise<unknown> = Promise.resolve();

  function asker(who: Parameters<Confirm>[0]): Asker {
    /** Nobody is there any more who would answer another question. */
    let gone = false;
    return {
      ask: (steps, refusal) =>
        new Promise<Answer>((resolve, reject) => {
          if (gone) return reject(new Cancelled());
          const question: Asking = {
            userId: who.userId,
            steps,
            refusal,
            busy: false,
            answer(answer) {
              if (asking.get() !== question) return;
              asking.set({ ...question, refusal: null, busy: true });
              resolve(answer);
            },
            async answerWithPasskey() {
              const { options, challenge } = await who.passkeyChallenge();
              const outcome = await askPasskey(options);
              if (!outcome.ok) return outcome.problem;
              question.answer({ kind: "factor", type: "passkey", challenge, credential: outcome.credential });
              return null;
            },
            cancel() {
              gone = true;
              if (asking.get() === question) reject(new Cancelled());
            },
          };
          asking.set(question);
        }),
      end: () => asking.set(null),
    };
  }

  return {
    asking,
    confirm(who, send) {
      // Two at once would ask over one another: the second waits for its turn.
      const mine = turn.then(() => confirmed(who, send, asker(who)));
      turn = mine.catch(() => undefined);
      return mine;
    },
  };
}
