// One session's WebSocket: frames out in order, kept until they are safe, sent again after a lost connection.

import { socketProtocols } from "/static/api.js";

const HEADER = 24, JPEG = 1;
const MOST_KEPT = 64 * 1024 * 1024;   // bytes kept for a server that forgets
const AHEAD = 8;                      // frames on their way

export class SessionStream extends EventTarget {
  constructor(id) {
    super();
    this.id = id;
    this.seen = -1; this.saved = -1; this.next = 0;
    this.kept = new Map(); this.keptBytes = 0;
    this.closed = false; this.wait = 250; this.greeted = false;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/v1/sessions/${this.id}/stream`, socketProtocols());
    this.socket = socket;
    socket.onmessage = (message) => this.hear(JSON.parse(message.data));
    socket.onclose = (event) => {
      if (this.closed || socket !== this.socket) return;
      this.tell("lost", { code: event.code });
      setTimeout(() => { if (!this.closed) this.open(); }, this.wait);
      this.wait = Math.min(2 * this.wait, 8000);
    };
  }

  hear(message) {
    if (message.type === "hello") this.resume(message);
    if (message.type === "ack") this.wait = 250;  // it works again
    if (message.type !== "hello" && "seen" in message) this.seen = Math.max(this.seen, message.seen);
    if ("saved" in message) this.forget(message.saved);
    this.tell(message.type, message);
    this.tell("progress", message);
  }

  // The server may know less than before (it crashed): what is kept goes out again, the rest is lost.
  resume(hello) {
    this.seen = hello.seen;
    if (!this.greeted) { this.next = hello.next; this.greeted = true; }
    const kept = [...this.kept.keys()].filter((id) => id >= hello.next);
    const first = kept.length ? kept[0] : Math.max(this.next, hello.next);
    if (first > hello.next) {
      this.tell("gone", { from: hello.next, to: first - 1 });
      this.socket.send(JSON.stringify({ type: "skip", to: first }));
    }
    for (const id of kept) this.socket.send(this.kept.get(id));
    this.next = Math.max(this.next, hello.next);
  }

  forget(saved) {
    this.saved = saved;
    for (const [id, bytes] of this.kept) {
      if (id > saved) break;
      this.kept.delete(id); this.keptBytes -= bytes.byteLength;
    }
  }

  get isOpen() { return this.greeted && this.socket.readyState === WebSocket.OPEN; }

  // Resolves when the connection is open, or after so long.
  async opened(patience) {
    const until = performance.now() + patience;
    while (!this.closed && !this.isOpen && performance.now() < until) await this.change();
  }

  // Resolves when the server said something, or after half a second.
  change() {
    return new Promise((done) => {
      const timer = setTimeout(done, 500);
      this.addEventListener("progress", () => { clearTimeout(timer); done(); }, { once: true });
    });
  }

  // Resolves when the server has room for another frame.
  async room() {
    while (!this.closed && (!this.isOpen || this.next - 1 - this.seen >= AHEAD)) await this.change();
  }

  async send(blob, time) {
    await this.room();
    if (this.closed) return;
    const jpeg = new Uint8Array(await blob.arrayBuffer());
    const bytes = new ArrayBuffer(HEADER + jpeg.length);
    const view = new DataView(bytes);
    view.setUint8(0, 0x53); view.setUint8(1, 0x46); view.setUint8(2, 1); view.setUint8(3, JPEG);
    view.setBigUint64(8, BigInt(this.next), true);
    view.setFloat64(16, time, true);
    new Uint8Array(bytes, HEADER).set(jpeg);
    this.kept.set(this.next, bytes); this.keptBytes += bytes.byteLength;
    this.next += 1;
    for (const [id, old] of this.kept) {
      if (this.keptBytes <= MOST_KEPT) break;
      this.kept.delete(id); this.keptBytes -= old.byteLength;
    }
    if (this.isOpen) this.socket.send(bytes);
  }

  say(message) { if (this.isOpen) this.socket.send(JSON.stringify(message)); return this.isOpen; }
  tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
  close() { this.closed = true; this.socket.close(); this.tell("progress", {}); }
}
