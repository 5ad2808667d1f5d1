// Requests to the server this page came from. Every refusal becomes an Error with the server's sentence.

let token = sessionStorage.getItem("token") || "";
export const setToken = (value) => { token = value; sessionStorage.setItem("token", value); };
export const socketProtocols = () => token ? ["spatial-ttt", `bearer.${token}`] : ["spatial-ttt"];

export class Refusal extends Error {
  constructor(status, error) {
    super(error.message || `the server answered ${status}`);
    this.status = status;
    this.code = error.code;
    this.facts = error;
  }
}

async function request(method, path, body) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!answer.ok) {
    let error = {};
    try { error = (await answer.json()).error; } catch { /* no JSON: the status says it */ }
    throw new Refusal(answer.status, error);
  }
  return answer;
}

export async function call(method, path, body) {
  const answer = await request(method, path, body);
  return answer.status === 204 ? null : answer.json();
}

export async function picture(path) {
  const answer = await request("GET", path);
  return answer.status === 204 ? null : answer.blob();
}

// Server-sent events of one POST, as an async iterator.
export async function* events(path, body, signal) {
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (!answer.ok) throw new Refusal(answer.status, (await answer.json()).error);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const event = JSON.parse(part.slice("data: ".length));
      if (event.type === "error") throw new Refusal(200, event.error);
      yield event;
    }
  }
}
