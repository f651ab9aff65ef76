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

// --- server-sent events

async function* readFrames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const text of frames) {
      const frame = { event: "message", id: "", data: "" };
      const data = [];
      for (const line of text.split("\n")) {
        const [, name, said] = /^(\w+): ?(.*)$/.exec(line) || [];
        if (name === "data") data.push(said);
        else if (name) frame[name] = said;
      }
      frame.data = data.join("\n").trim();
      if (data.length) yield frame;
    }
  }
}

// --- ingest

const STAGES = {
  queued: "Waiting for its turn",
  fetching: "Fetching the file",
  sampling: "Finding out how it is written",
  reading: "Reading every row",
  converting: "Typing every row",
  matching: "Looking for the keys in the table",
  rewriting: "Rewriting the files that hold them",
  storing: "Storing",
  registering: "Putting it into the table",
};

function describeJob(told) {
  const parts = [STAGES[told.stage] || told.stage];
  if (told.files_total)
    parts.push("file " + Math.min(told.files_done + 1, told.files_total) + " of " + told.files_total);
  if (told.rows) parts.push(told.rows.toLocaleString("en") + " rows");
  if (told.rejects) parts.push(told.rejects.toLocaleString("en") + " rejects");
  const done = told.bytes_read / 1e6;
  if (told.bytes_total) parts.push(done.toFixed(1) + " of " + (told.bytes_total / 1e6).toFixed(1) + " MB");
  if (told.note) parts.push(told.note);
  return parts.join(" · ");
}

// The job's events to its end; a connection that breaks off is made anew after the last one.
async function followJob(address, tell) {
  let last = "";
  for (let failures = 0; failures < 8; failures += 1) {
    try {
      const headers = { "hx-request": "true" };
      if (last) headers["last-event-id"] = last;
      const response = await fetch(address + "/events", { headers });
      if (!response.ok) return;
      for await (const frame of readFrames(response)) {
        failures = 0;
        last = frame.id;
        if (frame.event === "end") return;
        tell(JSON.parse(frame.data));
      }
    } catch {
      // The next connection says more.
    }
    await new Promise((wake) => setTimeout(wake, 500 * failures));
  }
}

// What a file is by its name, where that says it; else the file itself tells.
function nameType(name) {
  if (name.endsWith(".tsv")) return "text/tab-separated-values";
  return name.endsWith(".csv") || name.endsWith(".txt") ? "text/csv" : "application/octet-stream";
}

function startIngest(form) {
  const file = form.elements.file;
  const dataset = form.elements.dataset;
  const mode = form.elements.mode;
  const key = form.elements.key;
  const button = form.querySelector("button");
  const progress = byId("ingest-progress");
  const bar = byId("ingest-bar");
  const words = byId("ingest-words");
  const cancel = byId("ingest-cancel");
  const result = byId("ingest-result");
  let job = null;

  file.addEventListener("change", () => {
    const name = file.files[0]?.name || "";
    if (dataset.value || !name) return;
    const plain = name.toLowerCase().replace(/\..*$/, "").replace(/[^a-z0-9_]+/g, "_");
    if (/^[a-z]/.test(plain)) dataset.value = plain.slice(0, 63);
  });

  function showKey() {
    byId("key-field").hidden = mode.value !== "upsert";
    key.required = mode.value === "upsert";
  }
  mode.addEventListener("change", showKey);
  showKey();

  function end() {
    job = null;
    button.disabled = false;
    progress.hidden = true;
    cancel.hidden = true;
  }

  function showProgress(told) {
    const known = told.bytes_total && told.bytes_read <= told.bytes_total;
    if (known) bar.value = told.bytes_read / told.bytes_total;
    else bar.removeAttribute("value");
    words.textContent = describeJob(told);
  }

  async function follow(address) {
    job = address;
    cancel.hidden = false;
    await followJob(address, showProgress);
    try {
      const answer = await fetch(address, { headers: { "hx-request": "true" } });
      showAnswer(result, await answer.text(), answer.headers.get("content-type"));
    } catch {
      result.replaceChildren(makeProblem("The gateway cannot be reached. The ingest goes on."));
    }
    end();
  }

  cancel.addEventListener("click", async () => {
    if (!job) return;
    cancel.disabled = true;
    const headers = { "x-csrf-token": csrfToken(), "hx-request": "true" };
    try {
      const answer = await fetch(job + "/cancel", { method: "POST", headers });
      if (!answer.ok) say("It is too late to cancel that.");
    } finally {
      cancel.disabled = false;
    }
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = [...file.files];
    const query = new URLSearchParams({
      dataset: dataset.value,
      mode: mode.value,
      contract: form.elements.contract.value,
    });
    if (mode.value === "upsert") query.set("key", key.value);
    const request = new XMLHttpRequest();
    const began = performance.now();
    result.replaceChildren();
    button.disabled = true;
    progress.hidden = false;
    bar.value = 0;
    words.textContent = "Sending " + (chosen.length > 1 ? chosen.length + " files" : chosen[0].name);
    request.upload.addEventListener("progress", (told) => {
      if (!told.lengthComputable) return;
      bar.value = told.loaded / told.total;
      const rate = told.loaded / (performance.now() - began) / 1000;
      const part = Math.round((100 * told.loaded) / told.total);
      words.textContent = "Sending " + part + " %, " + rate.toFixed(1) + " MB/s";
    });
    request.addEventListener("loadend", () => {
      const moved = request.getResponseHeader("hx-redirect");
      if (request.status === 202) {
        follow(JSON.parse(request.responseText).job);
        return;
      }
      end();
      if (moved) location.assign(moved);
      else if (request.status)
        showAnswer(result, request.responseText, request.getResponseHeader("content-type"));
      else result.replaceChildren(makeProblem("The file did not arrive. Send it again."));
    });
    request.open("POST", form.getAttribute("data-action") + "?" + query);
    request.setRequestHeader("x-csrf-token", csrfToken());
    request.setRequestHeader("hx-request", "true");
    if (chosen.length > 1) {
      // The browser names the boundary.
      const files = new FormData();
      for (const one of chosen) files.append("file", one);
      request.send(files);
      return;
    }
    request.setRequestHeader("content-type", nameType(chosen[0].name.toLowerCase()));
    request.send(chosen[0]);
  });
}

// --- chat

const TALK = "lakehouse.chat";

async function* readEvents(response) {
  for await (const frame of readFrames(response))
    if (frame.data && frame.data !== "[DONE]") yield JSON.parse(frame.data);
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
