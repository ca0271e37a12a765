// The state that lives in the address: #/q/ID/solution/ID/step/3?filter=…&a=scdpo&b=dpo&credit=two

const QUERY = ["filter", "a", "b", "credit"];

export function read(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const parts = path.split("/").filter(Boolean);
  const state = { problem: null, solution: null, policy: null, step: null };
  const names = { q: "problem", solution: "solution", policy: "policy", step: "step" };
  for (let n = 0; n + 1 < parts.length; n += 2) {
    if (!(parts[n] in names)) break;
    try {
      state[names[parts[n]]] = decodeURIComponent(parts[n + 1]);
    } catch {
      break; // a stray percent sign
    }
  }
  const step = Number.parseInt(state.step, 10);
  state.step = step > 0 ? step : null;
  const given = new URLSearchParams(query);
  for (const name of QUERY) state[name] = given.get(name) ?? "";
  return state;
}

export function written(state) {
  let path = "#/";
  if (state.problem !== null) {
    path += `q/${encodeURIComponent(state.problem)}`;
    if (state.solution !== null) path += `/solution/${encodeURIComponent(state.solution)}`;
    else if (state.policy !== null) path += `/policy/${encodeURIComponent(state.policy)}`;
    if (state.step !== null) path += `/step/${state.step}`;
  }
  const query = new URLSearchParams();
  for (const name of QUERY) if (state[name]) query.set(name, state[name]);
  return query.size ? `${path}?${query}` : path;
}
