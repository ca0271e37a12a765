"""The colours of the pages that the package writes, light and dark."""

PALETTE = """\
/* Colours are of the Okabe-Ito palette, which colour-blind readers can tell apart. Each of them
   stands beside a mark, a dash pattern or a word that says the same. */
:root {
  color-scheme: light dark;
  --paper: #fff; --ground: #f4f5f7; --ink: #1b1f24; --dim: #5a6370; --line: #d6dae0;
  --accent: #0063a0; --correct: #0063a0; --wrong: #b04500; --undecided: #5a6370;
  --up: #56b4e9; --down: #e69f00; --current: #e3f0fa; --escape: #8a2f6a; --escape-paper: #fbe9f4;
  --tone-1: #0072b2; --tone-2: #d55e00; --tone-3: #00845f; --tone-4: #b3578a;
  --mono: ui-monospace, "SF Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ground: #1c2026; --ink: #e4e7eb; --dim: #9aa4b1; --line: #343b45;
    --accent: #6cb8f0; --correct: #6cb8f0; --wrong: #ff9a57; --undecided: #a7b0bc;
    --up: #2a78ad; --down: #a86a00; --current: #20364a; --escape: #f0a3d2; --escape-paper: #43223a;
    --tone-1: #56b4e9; --tone-2: #f08030; --tone-3: #2fc79a; --tone-4: #d79bbb;
  }
}
"""
"""Custom properties for a style sheet. `--tone-1` to `--tone-4` are those of lines in charts."""
