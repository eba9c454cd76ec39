/* The search runs in a worker, and browsers refuse workers in pages that are opened from disk: there, a hidden frame
   takes the worker's place. The name keeps the theme from fetching its own script for it from a network. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow;
      inside.document.open();  // or Firefox would replace the empty document once more
      inside.document.write("<body>");
      inside.document.close();
      const base = new URL(url, location.href);
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) => urls.reduce((done, next) => done.then(() => load(next)), Promise.resolve());
      const load = source => new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        Object.assign(script, { src: new URL(source, base).href, onload: done, onerror: failed });
        inside.document.body.appendChild(script);
      });
      this.ready = load(base);
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
