"""The report's look: legible light and dark, from a phone's width to a wide screen."""

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1e23; --soft: #59606b;
  --line: #d5d9e0; --card: #f5f6f8; --accent: #0b62a3; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e7e9ec;
  --soft: #a5adb8; --line: #363c45; --card: #1d2127; --accent: #7cbcf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1480px; padding: 0 clamp(12px, 3vw, 40px) 60px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 1.6rem 0 .3rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 0 0 .3rem; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; }
p { margin: .3rem 0 .8rem; max-width: 80ch; overflow-wrap: anywhere; }
.help, figcaption, .note { color: var(--soft); }
.note { border-left: 3px solid var(--accent); padding-left: .7rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .8rem 0 0; }
a { color: var(--accent); }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.4rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .82rem; line-height: 1.35; margin-top: .35rem;
  overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; border-radius: 3px; }
svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .3rem 0 .8rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .9rem .28rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; background: var(--card); padding: .8rem; border-radius: 4px;
  font-size: .8rem; line-height: 1.4; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .8rem 0; padding: 0; }
.facts div { min-width: 6rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.charts { display: grid; gap: 1rem 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); }
.charts figure { max-width: 420px; }
.pairs { display: grid; gap: 1.4rem 1.8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); }
.beside { display: flex; gap: 6px; align-items: flex-start; }
.beside img { min-width: 0; }
.prototypes { display: grid; gap: 1.5rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 560px), 1fr)); }
.prototypes h3 { margin: 0 0 .4rem; }
.row { display: grid; gap: 5px; align-items: start;
  grid-template-columns: repeat(5, minmax(0, 1fr)); }
.row figcaption { font-size: .72rem; margin-top: .15rem; }
.chips { display: flex; flex-wrap: wrap; gap: .25rem .6rem; margin-top: .4rem; }
.chip { display: inline-flex; gap: .3rem; align-items: center; font-size: .8rem; }
.chip b { border-radius: 3px; padding: 0 .4rem; min-width: 1.7rem; text-align: center;
  border: 1px solid var(--line); }
.scroll { overflow-x: auto; }
.scroll > div { min-width: 640px; max-width: 920px; }
@media (max-width: 620px) { .slots .beside { flex-direction: column; }
  .row { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
"""
