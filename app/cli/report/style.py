"""The style sheet of the report's page: light and dark, by what the reader's system asks for. Data, no code.

The colours of the series have a contrast of 3:1 or more with the background of their mode (WCAG 1.4.11).
"""

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1e23;--dim:#5c636a;--line:#d5d9de;
--c0:#1f6fb4;--c1:#c2570c;--c2:#2b8a3e;--c3:#b02a5b;--c4:#6741d9;--c5:#0b7f86;--c6:#8a6d0b;--c7:#5c636a}
@media (prefers-color-scheme:dark){:root{--bg:#14161a;--fg:#e6e8eb;--dim:#9aa2ab;--line:#363b42;
--c0:#6cb0f0;--c1:#f0a35e;--c2:#69c27b;--c3:#ef7fa8;--c4:#a996f5;--c5:#4fc3ca;--c6:#d9b84a;--c7:#aab1b8}}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
main{max-width:1200px;margin:auto;padding:1.5rem}
h1{margin:0 0 .5rem;overflow-wrap:anywhere}h2{margin:2rem 0 .5rem;font-size:1.15rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0}
dt,.dim,caption,thead th{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
.row{display:flex;flex-wrap:wrap;gap:1.5rem;align-items:flex-start}
figure{margin:0;flex:2 1 480px;min-width:0}svg{width:100%;height:auto;display:block}
.table{overflow:auto;max-height:24rem;flex:1 1 220px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.25rem}
th{font-weight:400;text-align:left}thead th{font-weight:600;position:sticky;top:0;background:var(--bg)}
th,td{padding:.15rem .75rem .15rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n{text-align:right}td{overflow-wrap:break-word;max-width:36rem}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;margin:.5rem 0}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
.grid{stroke:var(--line)}.label{fill:var(--dim);font-size:12px}
.s0{fill:var(--c0);background:var(--c0)}.s1{fill:var(--c1);background:var(--c1)}
.s2{fill:var(--c2);background:var(--c2)}.s3{fill:var(--c3);background:var(--c3)}
.s4{fill:var(--c4);background:var(--c4)}.s5{fill:var(--c5);background:var(--c5)}
.s6{fill:var(--c6);background:var(--c6)}.s7{fill:var(--c7);background:var(--c7)}
@media print{.table{max-height:none}}
"""
