/** What the browser's database keeps over a reload: images with their designs, and the state of the canvas. */

const TABLE = "images"; // its name in all databases, that of the state too

export class Shelf {
  #database;

  /** @param kept number of the newest items that stay. */
  constructor(name, kept) {
    Object.assign(this, { name, kept });
    this.#database = new Promise((resolve, reject) => {
      const request = indexedDB.open(name);
      request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { autoIncrement: true });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  /** Returns what was put, newest first; nothing where the browser keeps nothing. */
  async all() {
    await this.#take().catch(() => {});
    return (await this.#done("readonly", (table) => table.getAll()).catch(() => [])).reverse();
  }

  /** Keeps an item, and returns whether the browser did: its storage may be full or blocked. */
  async put(item) {
    try {
      await this.#done("readwrite", (table) => table.add(item));
      const old = (await this.#done("readonly", (table) => table.getAllKeys())).at(-this.kept - 1);
      if (old !== undefined) await this.#done("readwrite", (table) => table.delete(IDBKeyRange.upperBound(old)));
      localStorage.removeItem(this.name); // older: a page may go on after it was left
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Keeps a plain object before it returns, for a page that is closing: what such a page asks of the database may be
   * dropped. Browsers take about 5 MB of text this way; more goes to the database.
   */
  putNow(item) {
    try {
      localStorage.setItem(this.name, JSON.stringify(item));
    } catch {
      this.put(item);
    }
  }

  /** Moves to the database what a closing page has kept. */
  async #take() {
    const last = localStorage.getItem(this.name);
    if (last) await this.put(JSON.parse(last));
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
