/** What the browser's database keeps over a reload: images with their designs, and the state of the canvas. */

const TABLE = "images"; // its name in all databases, that of the state too

export class Shelf {
  #database;

  /** @param kept number of the newest items that stay. */
  constructor(name, kept) {
    this.kept = kept;
    this.#database = new Promise((resolve, reject) => {
      const request = indexedDB.open(name);
      request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { autoIncrement: true });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  /** Returns what was put, newest first; nothing where the browser keeps nothing. */
  async all() {
    return (await this.#done("readonly", (table) => table.getAll()).catch(() => [])).reverse();
  }

  /** Keeps an item, and returns whether the browser did: its storage may be full or blocked. */
  async put(item) {
    try {
      await this.#done("readwrite", (table) => table.add(item));
      const old = (await this.#done("readonly", (table) => table.getAllKeys())).at(-this.kept - 1);
      if (old !== undefined) await this.#done("readwrite", (table) => table.delete(IDBKeyRange.upperBound(old)));
      return true;
    } catch {
      return false;
    }
  }

  async #done(mode, act) {
    const transaction = (await this.#database).transaction(TABLE, mode);
    const request = act(transaction.objectStore(TABLE));
    if (mode === "readwrite") transaction.commit(); // at once, as the page may be closing
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }
}
