/** Images with their designs in the browser's database, where they outlive a reload. */

const KEPT = 48;
const TABLE = "images";

export class Shelf {
  #database;

  constructor(name) {
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

  async put(item) {
    await this.#done("readwrite", (table) => table.add(item)).catch(() => {}); // full or forbidden: until the page is closed
    const keys = await this.#done("readonly", (table) => table.getAllKeys()).catch(() => []);
    if (keys.length > KEPT) this.#done("readwrite", (table) => table.delete(IDBKeyRange.upperBound(keys.at(-KEPT - 1))));
  }

  async #done(mode, act) {
    const request = act((await this.#database).transaction(TABLE, mode).objectStore(TABLE));
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }
}
