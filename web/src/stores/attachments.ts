/** Decrypted pictures, kept while there is room: scrolling back must not fetch them again. */
export interface BlobCache {
  get(key: string, load: () => Promise<Blob>): Promise<Blob>;
  clear(): void;
}

export function blobCache(mostBytes: number): BlobCache {
  const blobs = new Map<string, Blob>();
  let bytes = 0;
  return {
    async get(key, load) {
      const known = blobs.get(key);
      if (known !== undefined) {
        // The newest use goes to the end of the order in which they are dropped.
        blobs.delete(key);
        blobs.set(key, known);
        return known;
      }
      const blob = await load();
      if (blob.size > mostBytes / 4 || blobs.has(key)) return blob;
      blobs.set(key, blob);
      bytes += blob.size;
      for (const [old, dropped] of blobs) {
        if (bytes <= mostBytes) break;
        blobs.delete(old);
        bytes -= dropped.size;
      }
      return blob;
    },
    clear() {
      blobs.clear();
      bytes = 0;
    },
  };
}
