// What HTMX does not do for the console: a history of queries, uploads with their progress,
// and the chat's stream. Text from the fleet is only ever put into a page as text, or as HTML
// that the server has escaped.
"use strict";

const byId = (id) => document.getElementById(id);

function say(text) {
  byId("said").textContent = text;
}

function csrfToken() {
  return JSON.parse(document.body.getAttribute("hx-headers"))["x-csrf-token"];
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function makeProblem(text) {
  const box = make("div", "problem");
  box.setAttribute("role", "alert");
  box.append(make("p", "", text));
  return box;
}

// Only what the console itself rendered is taken as HTML; what the gateway's guards answer is not.
function showAnswer(target, text, type) {
  if ((type || "").startsWith("text/html")) target.innerHTML = text;
  else target.replaceChildren(makeProblem("The gateway refused that. Load the page again."));
}

// Storage that a browser may refuse, or a person may have filled with something else.
function readStored(storage, key) {
  try {
    const found = JSON.parse(storage.getItem(key));
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function writeStored(storage, key, value) {
  try {
    storage.setItem(key, JSON.stringify(value));
  } catch {
    // Full or refused: the page works without.
  }
}

// --- every page

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-send]")) event.target.form.requestSubmit();
});

// A gateway that cannot be reached is told once, and no longer when it answers again.
document.addEventListener("htmx:sendError", () => {
  let box = byId("offline");
  if (!box) {
    box = makeProblem("The gateway cannot be reached. This page goes on when it answers again.");
    box.id = "offline";
    byId("main").prepend(box);
  }
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) byId("offline")?.remove();
});
document.addEventListener("htmx:afterSwap", (event) => {
  const target = event.detail.target;
  if (target.id === "sql-result" || target.id === "hits") {
    const heading = target.querySelector("h2, .problem, .empty-title");
    const hits = target.querySelectorAll("li.hit").length;
    say(hits ? hits + " hits" : heading ? heading.textContent : "");
  }
});

// On a phone the menu is wider than the screen: the page that is open is brought into sight.
document.querySelector(".side [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

// --- SQL

const HISTORY = "lakehouse.sql.history";
const KEPT = 50;

function startSql(form) {
  const editor = byId("sql");
  const list = byId("history");

  function show() {
    const kept = readStored(localStorage, HISTORY).filter((one) => typeof one === "string");
    list.replaceChildren(
      ...kept.map((sql) => {
        const item = make("li");
        const button = make("button", "plain", sql.replace(/\s+/g, " ").slice(0, 120));
        button.type = "button";
        button.title = sql;
        button.addEventListener("click", () => {
          editor.value = sql;
          editor.focus();
        });
        item.append(button);
        return item;
      }),
    );
    byId("no-history").hidden = kept.length > 0;
    byId("clear-history").hidden = kept.length === 0;
  }

  form.addEventListener("htmx:beforeRequest", () => {
    const sql = editor.value.trim();
    if (!sql) return;
    const others = readStored(localStorage, HISTORY).filter((one) => one !== sql);
    writeStored(localStorage, HISTORY, [sql, ...others].slice(0, KEPT));
    show();
  });
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  byId("tables")?.addEventListener("click", (event) => {
    const name = event.target.dataset.insert;
    if (!name) return;
    const text = '"' + name + '"';
    if (!editor.value.trim()) editor.value = "SELECT * FROM " + text + " LIMIT 100";
    else editor.setRangeText(text, editor.selectionStart, editor.selectionEnd, "end");
    editor.focus();
  });
  byId("clear-history").addEventListener("click", () => {
    writeStored(localStorage, HISTORY, []);
    show();
  });
  const asOf = new URLSearchParams(location.search).get("as_of");
  if (asOf) byId("as-of").value = asOf;
  show();
}

// --- ingest

function startIngest(form) {
  const file = form.elements.file;
  const dataset = form.elements.dataset;
  const button = form.querySelector("button");
  const progress = byId("ingest-progress");
  const bar = byId("ingest-bar");
  const words = byId("ingest-words");
  const result = byId("ingest-result");

  file.addEventListener("change", () => {
    const name = file.files[0]?.name || "";
    if (dataset.value || !name) return;
    const plain = name.toLowerCase().replace(/\..*$/, "").replace(/[^a-z0-9_]+/g, "_");
    if (/^[a-z]/.test(plain)) dataset.value = plain.slice(0, 63);
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = file.files[0];
    const query = new URLSearchParams({
      dataset: dataset.value,
      mode: form.elements.mode.value,
      contract: form.elements.contract.value,
    });
    const request = new XMLHttpRequest();
    const began = performance.now();
    let sent = false;
    const clock = setInterval(() => {
      const seconds = Math.round((performance.now() - began) / 1000);
      if (sent) words.textContent = "Reading and typing every row: " + seconds + " s";
    }, 500);
    result.replaceChildren();
    button.disabled = true;
    progress.hidden = false;
    bar.value = 0;
    words.textContent = "Sending " + chosen.name;
    request.upload.addEventListener("progress", (told) => {
      if (!told.lengthComputable) return;
      bar.value = told.loaded / told.total;
      const rate = told.loaded / (performance.now() - began) / 1000;
      const part = Math.round((100 * told.loaded) / told.total);
      words.textContent = "Sending " + part + " %, " + rate.toFixed(1) + " MB/s";
    });
    request.upload.addEventListener("load", () => {
      sent = true;
      bar.removeAttribute("value");
      words.textContent = "Reading and typing every row";
    });
    request.addEventListener("loadend", () => {
      clearInterval(clock);
      button.disabled = false;
      progress.hidden = true;
      const moved = request.getResponseHeader("hx-redirect");
      if (moved) location.assign(moved);
      else if (request.status)
        showAnswer(result, request.responseText, request.getResponseHeader("content-type"));
      else result.replaceChildren(makeProblem("The file did not arrive. Send it again."));
    });
    request.open("POST", form.getAttribute("data-action") + "?" + query);
    const name = chosen.name.toLowerCase();
    const packed = name.endsWith(".gz") || name.endsWith(".zst");
    const plain = name.endsWith(".tsv") ? "text/tab-separated-values" : "text/csv";
    request.setRequestHeader("content-type", packed ? "application/gzip" : plain);
    request.setRequestHeader("x-csrf-token", csrfToken());
    request.setRequestHeader("hx-request", "true");
    request.send(chosen);
  });
}

// --- chat

const TALK = "lakehouse.chat";

async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").filter((line) => line.startsWith("data:"));
      const text = data.map((line) => line.slice(5).trim()).join("\n");
      if (text && text !== "[DONE]") yield JSON.parse(text);
    }
  }
}

function startChat(box) {
  const form = byId("chat-form");
  const text = byId("chat-text");
  const log = byId("chat-log");
  const stop = byId("chat-stop");
  const send = byId("chat-send");
  let messages = readStored(sessionStorage, TALK);
  let running = null;

  function add(role, content) {
    const item = make("li", "turn turn-" + role);
    item.append(make("span", "turn-who", role === "user" ? "You" : "Model"));
    const body = make("div", "turn-text", content);
    item.append(body);
    log.append(item);
    byId("chat-empty").hidden = true;
    item.scrollIntoView({ block: "end" });
    return { item, body };
  }

  function show() {
    log.replaceChildren();
    byId("chat-empty").hidden = messages.length > 0;
    for (const one of messages) add(one.role, one.content);
  }

  function describe(done) {
    const parts = [done.model, done.usage.completion_tokens + " tokens"];
    parts.push((done.latency_ms / 1000).toFixed(1) + " s");
    if (done.usage.cost_usd) parts.push("$" + done.usage.cost_usd.toFixed(4));
    if (done.finish_reason === "length") parts.push("cut at its longest");
    return parts.join(" · ");
  }

  async function ask() {
    const turn = add("assistant", "");
    turn.item.classList.add("writing");
    let answer = "";
    running = new AbortController();
    try {
      const response = await fetch(box.dataset.action, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "x-csrf-token": csrfToken(),
          "hx-request": "true",
        },
        body: JSON.stringify({ model: byId("chat-model").value, messages }),
        signal: running.signal,
      });
      if (response.headers.get("hx-redirect")) {
        location.assign(response.headers.get("hx-redirect"));
        return;
      }
      if (!response.ok) {
        showAnswer(turn.body, await response.text(), response.headers.get("content-type"));
        return;
      }
      for await (const event of readEvents(response)) {
        if (event.type === "text") {
          answer += event.text;
          turn.body.textContent = answer;
          turn.item.scrollIntoView({ block: "end" });
        } else if (event.type === "error") {
          turn.item.append(makeProblem(event.error.message));
        } else if (event.type === "done") {
          turn.item.append(make("span", "turn-note", describe(event)));
          byId("chat-said").textContent = answer;
        }
      }
    } catch (error) {
      const stopped = error.name === "AbortError";
      const words = stopped ? "Stopped." : "The answer broke off. Send the message again.";
      turn.item.append(stopped ? make("span", "turn-note", words) : makeProblem(words));
    } finally {
      turn.item.classList.remove("writing");
      running = null;
      stop.hidden = true;
      send.disabled = false;
      if (answer) messages.push({ role: "assistant", content: answer });
      // A question without an answer is taken back, so that turns stay in turn.
      else messages.pop();
      writeStored(sessionStorage, TALK, messages);
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const content = text.value.trim();
    if (!content || running) return;
    messages.push({ role: "user", content });
    add("user", content);
    text.value = "";
    send.disabled = true;
    stop.hidden = false;
    ask();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  stop.addEventListener("click", () => running?.abort());
  byId("chat-new").addEventListener("click", () => {
    running?.abort();
    messages = [];
    writeStored(sessionStorage, TALK, messages);
    show();
    text.focus();
  });
  show();
}

const sqlForm = byId("sql-form");
const ingestForm = byId("ingest");
const chatBox = byId("chat");
if (sqlForm) startSql(sqlForm);
if (ingestForm) startIngest(ingestForm);
if (chatBox) startChat(chatBox);
