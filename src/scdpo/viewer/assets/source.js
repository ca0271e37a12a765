// Where the rows come from: the server that reads the run, or this file itself.

async function unpacked(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

async function asked(path) {
  const answer = await fetch(path, { credentials: "same-origin" });
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
}

const served = {
  live: true,
  tables: (generation, sizes) =>
    asked("api/tables?" + new URLSearchParams({ generation, ...sizes })),
  problem: (generation, number) =>
    asked("api/problem?" + new URLSearchParams({ generation, number })),
};

function contained(directory) {
  let last = { chunk: -1, problems: null };
  return {
    live: false,
    tables: () => unpacked("tables"),
    async problem(generation, number) {
      if (number >= directory.whole) {
        throw new Error("This file has no room for the texts of this problem: " +
          "scdpo view shows all of a run.");
      }
      let chunk = directory.firsts.findIndex((first) => first > number);
      chunk = chunk < 0 ? directory.firsts.length - 1 : chunk - 1;
      if (last.chunk !== chunk) last = { chunk, problems: unpacked(`chunk-${chunk}`) };
      return (await last.problems)[number - directory.firsts[chunk]];
    },
  };
}

export function source() {
  const directory = document.getElementById("directory");
  return directory ? contained(JSON.parse(directory.textContent)) : served;
}
