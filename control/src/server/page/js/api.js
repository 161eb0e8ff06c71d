// Reads of the API. The session's key stays with this page's origin; each read carries it.

const PLACE = "pilotfish-session";

// The link's redirect leaves the key in the fragment, which no server sees. Routes begin with a slash, keys do not.
if (location.hash.length > 20 && location.hash[1] !== "/") {
  localStorage.setItem(PLACE, location.hash.slice(1));
  history.replaceState(null, "", "/");
}

/** The session is over: only a new link helps. */
export class Ended extends Error {}

async function ask(path, signal) {
  const headers = { "x-pilotfish-session": localStorage.getItem(PLACE) || "" };
  let answer;
  try {
    answer = await fetch(path, { headers, cache: "no-store", credentials: "same-origin", signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The control plane does not answer.");
  }
  if (answer.status === 401) throw new Ended("The session has ended.");
  if (answer.ok) return answer;
  let said = `The control plane answers with status ${answer.status}.`;
  try {
    said = (await answer.json()).error || said;
  } catch {
    // No JSON: the status has to do.
  }
  throw Object.assign(new Error(said), { status: answer.status });
}

/** A path with its query; what is empty is left out. */
export function at(path, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
}

/** JSON of the API. */
export async function read(path, signal) {
  return (await ask(path, signal)).json();
}

/** JSON lines of the API as they come, until the other side ends. */
export async function lines(path, signal, take) {
  const reader = (await ask(path, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.trim()) take(JSON.parse(part));
    }
  }
}
