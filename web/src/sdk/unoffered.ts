/**
 * What matrix-js-sdk's CryptoApi asks of an encryption and Sealed Rooms does not do by that road: questions are answered truthfully with no, and
 * what would have to do something refuses. The client's own interface (types.ts) offers what there is.
 */
import type { DeviceMap } from "matrix-js-sdk/lib/models/device.js";
import { TypedEventEmitter } from "matrix-js-sdk/lib/models/typed-event-emitter.js";
import {
  DeviceVerificationStatus,
  UserVerificationStatus,
  type BackupTrustInfo,
  type CrossSigningStatus,
  type CryptoEvent,
  type CryptoEventHandlerMap,
  type SecretStorageStatus,
} from "matrix-js-sdk/lib/crypto-api/index.js";

function refuse(): Promise<never> {
  return Promise.reject(new Error("Sealed Rooms does not offer this."));
}

export abstract class UnofferedCrypto extends TypedEventEmitter<CryptoEvent, CryptoEventHandlerMap> {
  getVersion(): string {
    return "im.conclave.sealed.v1";
  }

  // Trust follows cross-signing alone, and cannot be loosened here.
  setDeviceIsolationMode(): void {}
  setTrustCrossSignedDevices(): void {}
  getTrustCrossSignedDevices(): boolean {
    return true;
  }

  // Nobody has been verified in person, and what the SDK knows of devices is not what this client goes by.
  async getUserVerificationStatus(): Promise<UserVerificationStatus> {
    return new UserVerificationStatus(false, false, false);
  }
  async getDeviceVerificationStatus(): Promise<DeviceVerificationStatus | null> {
    return new DeviceVerificationStatus({});
  }
  async getUserDeviceInfo(): Promise<DeviceMap> {
    return new Map();
  }
  async getUserCrossSigningKeys(): Promise<null> {
    return null;
  }
  async getCrossSigningKeyId(): Promise<null> {
    return null;
  }
  async getCrossSigningStatus(): Promise<CrossSigningStatus> {
    return {
      publicKeysOnDevice: false,
      privateKeysInSecretStorage: false,
      privateKeysCachedLocally: { masterKey: false, selfSigningKey: false, userSigningKey: false },
    };
  }
  async isSecretStorageReady(): Promise<boolean> {
    return false;
  }
  async getSecretStorageStatus(): Promise<SecretStorageStatus> {
    return { ready: false, defaultKeyId: null, secretStorageKeyValidityMap: {} };
  }
  getVerificationRequestsToDeviceInProgress(): never[] {
    return [];
  }
  findVerificationRequestDMInProgress(): undefined {
    return undefined;
  }

  // No backup and no history bundles by this road.
  async getSessionBackupPrivateKey(): Promise<null> {
    return null;
  }
  async getActiveSessionBackupVersion(): Promise<null> {
    return null;
  }
  async isKeyBackupTrusted(): Promise<BackupTrustInfo> {
    return { trusted: false, matchesDecryptionKey: false };
  }
  async getKeyBackupInfo(): Promise<null> {
    return null;
  }
  async checkKeyBackupAndEnable(): Promise<null> {
    return null;
  }
  async isDehydrationSupported(): Promise<boolean> {
    return false;
  }
  async shareRoomHistoryWithUser(): Promise<void> {}
  async maybeAcceptKeyBundle(): Promise<boolean> {
    return false;
  }
  async markRoomAsPendingKeyBundle(): Promise<void> {}

  readonly encryptToDeviceMessages = refuse;
  readonly exportRoomKeys = refuse;
  readonly exportRoomKeysAsJson = refuse;
  readonly importRoomKeys = refuse;
  readonly importRoomKeysAsJson = refuse;
  readonly importBackedUpRoomKeys = refuse;
  readonly getBackupDecryptor = refuse;
  readonly pinCurrentUserIdentity = refuse;
  readonly withdrawVerificationRequirement = refuse;
  readonly setDeviceVerified = refuse;
  readonly crossSignDevice = refuse;
  readonly bootstrapCrossSigning = refuse;
  readonly bootstrapSecretStorage = refuse;
  readonly createRecoveryKeyFromPassphrase = refuse;
  readonly resetEncryption = refuse;
  readonly requestVerificationDM = refuse;
  readonly requestOwnUserVerification = refuse;
  readonly requestDeviceVerification = refuse;
  readonly storeSessionBackupPrivateKey = refuse;
  readonly loadSessionBackupPrivateKeyFromSecretStorage = refuse;
  readonly resetKeyBackup = refuse;
  readonly disableKeyStorage = refuse;
  readonly deleteKeyBackupVersion = refuse;
  readonly restoreKeyBackup = refuse;
  readonly restoreKeyBackupWithPassphrase = refuse;
  readonly startDehydration = refuse;
}
