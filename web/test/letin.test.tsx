// @vitest-environment happy-dom
import { cleanup, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { StrictMode } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { LetIn } from "../src/features/security/LetIn";
import { QrCode } from "../src/features/auth/QrCode";
import { fakeAccount, waitingDevice } from "../src/gallery/account";
import { ApiError, Cancelled } from "../src/sdk";
import { cell } from "../src/stores/observable";

afterEach(cleanup);
const gone = (): Promise<never> => Promise.reject(new ApiError(404, { errcode: "M_NOT_FOUND", error: "none" }));

test("somebody types a code, sees what waits, and lets it in; not confirming changes nothing", async () => {
  const user = userEvent.setup();
  const allowLink = vi.fn<(code: string) => Promise<void>>().mockRejectedValueOnce(new Cancelled());
  const onAllowed = vi.fn();
  render(<LetIn account={fakeAccount({ allowLink })} onAllowed={onAllowed} />);
  await user.click(screen.getByRole("button", { name: "Continue" }));
  expect(screen.getByRole("alert").textContent).toBe("Enter the code.");
  await user.type(screen.getByLabelText("Code of the device"), " wdjb mjht ");
  await user.click(screen.getByRole("button", { name: "Continue" }));
  expect((await screen.findByRole("heading", { level: 3 })).textContent).toContain(waitingDevice.name);
  expect(screen.getByText("198.51.100.23")).toBeDefined();
  expect(screen.getByText(/Only let in a device that you hold in your hands/)).toBeDefined();
  await user.click(screen.getByRole("button", { name: "Let it in" }));
  expect(onAllowed).not.toHaveBeenCalled();
  expect(screen.queryByRole("alert")).toBeNull();
  await user.click(screen.getByRole("button", { name: "Let it in" }));
  expect(allowLink.mock.calls).toEqual([["wdjb mjht"], ["wdjb mjht"]]);
  expect(onAllowed).toHaveBeenCalledTimes(1);
  expect(screen.getByLabelText<HTMLInputElement>("Code of the device").value).toBe("");
});

test("a code that somebody came with is looked at once, and can be refused; one that waits no longer is said to be gone", async () => {
  const user = userEvent.setup();
  const arrivedLink = cell<string | null>("WDJB-MJHT");
  const lookAtLink = vi.fn(async () => waitingDevice);
  const refuseLink = vi.fn<(code: string) => Promise<void>>().mockImplementationOnce(gone).mockResolvedValue();
  const account = fakeAccount({ arrivedLink, lookAtLink, refuseLink, forgetLink: () => arrivedLink.set(null) });
  render(
    <StrictMode>
      <LetIn account={account} onAllowed={() => {}} />
    </StrictMode>,
  );
  await user.click(await screen.findByRole("button", { name: "Refuse" }));
  expect((await screen.findByRole("alert")).textContent).toContain("waits no longer");
  await user.click(screen.getByRole("button", { name: "Refuse" }));
  await waitFor(() => expect(screen.queryByRole("heading", { level: 3 })).toBeNull());
  expect(lookAtLink.mock.calls).toEqual([["WDJB-MJHT"]]);
  expect(refuseLink).toHaveBeenLastCalledWith("WDJB-MJHT");
});

test("an unknown code is said to be unknown, and stays to be mended", async () => {
  const user = userEvent.setup();
  render(<LetIn account={fakeAccount({ lookAtLink: gone })} onAllowed={() => {}} />);
  await user.type(screen.getByLabelText("Code of the device"), "AAAA-AAAA{Enter}");
  expect((await screen.findByRole("alert")).textContent).toContain("No device waits with this code");
  expect(screen.getByLabelText<HTMLInputElement>("Code of the device").value).toBe("AAAA-AAAA");
});

test("a QR code has its three corners in a margin of four modules", () => {
  render(<QrCode text="https://hs.test/#/link?code=WDJB-MJHT" label="QR code" />);
  const picture = screen.getByRole("img", { name: "QR code" });
  const size = Number(picture.getAttribute("viewBox")?.split(" ")[2]);
  const path = picture.querySelector("path")?.getAttribute("d") ?? "";
  for (const corner of ["M4 4h7v1h-7z", `M${size - 11} 4h7v1h-7z`, `M4 ${size - 5}h7v1h-7z`])
    expect(path).toContain(corner);
  expect(path).not.toMatch(/M[0-3] |M\d+ [0-3]h/);
});
