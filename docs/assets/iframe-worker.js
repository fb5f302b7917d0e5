// From a file system a browser refuses to start a worker, and the search needs one. Here a hidden frame is the worker: it
// runs the same script, and the two pass messages to each other by hand.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.src = "about:blank";
      const start = () => {
        const inner = this.frame.contentWindow;
        inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        inner.importScripts = (...urls) =>
          urls.reduce((before, one) => before.then(() => load(inner, one)), Promise.resolve());
        load(inner, url).then(() => {
          const waiting = this.waiting;
          this.waiting = null;
          waiting.forEach((data) => this.postMessage(data));
        });
      };
      const attach = () => {
        document.body.appendChild(this.frame);
        start();
      };
      document.body ? attach() : addEventListener("DOMContentLoaded", attach);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() {
      this.frame.remove();
    }
  };
  const load = (inner, url) =>
    new Promise((done, failed) => {
      const script = inner.document.createElement("script");
      script.src = url;
      script.onload = done;
      script.onerror = failed;
      inner.document.head.appendChild(script);
    });
}
