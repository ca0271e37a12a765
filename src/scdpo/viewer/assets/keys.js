// The keys.

export function keyActions(actions, input) {
  const keys = {
    j: () => actions.moveProblem(1), k: () => actions.moveProblem(-1),
    g: () => actions.endProblem(false), G: () => actions.endProblem(true),
    n: () => actions.moveRow(1), p: () => actions.moveRow(-1),
    "[": () => actions.moveSibling(-1), "]": () => actions.moveSibling(1),
    e: () => actions.steps("all"), x: () => actions.steps("none"),
    c: () => actions.credit(), "?": () => actions.help(), Escape: () => actions.leave(),
    "/": () => { input.focus(); input.select(); },
  };
  return (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { target, key } = event;
    if (document.querySelector("dialog[open]")) return; // Escape closes it
    if (target === input) {
      if (key === "Enter") {
        actions.applyFilter();
        input.blur();
        actions.moveProblem(1);
      } else if (key === "Escape") input.blur();
      else return;
      event.preventDefault();
      return;
    }
    if (target.closest?.("select, input, textarea")) return;
    if (key === "Enter") {
      if (!target.closest?.("button, summary, a")) actions.enter();
      return;
    }
    if (!Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
  };
}
