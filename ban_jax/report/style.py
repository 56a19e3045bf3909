"""Style sheet and script of the report page, kept as text so that the page is one file.

The script only adds comfort (sorting, filtering, opening all sections); the page says
everything without it.
"""

CSS = """
:root{color-scheme:light dark;
--paper:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#566273;--line:#dce1e8;--grid:#cdd4dd;
--bar:#7d94b5;--bar2:#c6cfdb;--hot:#b42318;--hotbg:#fdecea;--ok:#0a6b4f;--okbg:#e5f4ee;
--warn:#7a4b00;--warnbg:#fdf1d8;--link:#1a56a8}
@media (prefers-color-scheme:dark){:root{
--paper:#11161d;--card:#19202a;--ink:#e6ebf2;--soft:#9ba8b8;--line:#2c3643;--grid:#3a4655;
--bar:#6f8ab0;--bar2:#414e60;--hot:#ff8a7d;--hotbg:#3a1d1c;--ok:#63d2ab;--okbg:#13322a;
--warn:#f2c063;--warnbg:#362a12;--link:#8ab8f5}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
sans-serif;
font-variant-numeric:tabular-nums}
main,header,footer{max-width:1080px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
h1{font-size:clamp(1.6rem,4vw,2.35rem);line-height:1.18;letter-spacing:-.018em;
margin:.2em 0 .45em;max-width:34ch;text-wrap:balance}
h2{font-size:1.25rem;letter-spacing:-.01em;margin:2.6em 0 .8em}
h3{font-size:.95rem;margin:0 0 .35em}
p{margin:0 0 .8em;max-width:72ch}
a{color:var(--link);text-underline-offset:.28em;text-decoration-thickness:.06em}
a:focus-visible,summary:focus-visible,button:focus-visible,input:focus-visible,
select:focus-visible{outline:3px solid var(--link);outline-offset:2px}
code,.path,.hash{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",
monospace;font-size:.875em;overflow-wrap:anywhere}
.eyebrow{color:var(--soft);font-size:.85rem;margin:0;overflow-wrap:anywhere}
.lede{font-size:1.06rem;color:var(--soft)}
.lede strong{color:var(--ink)}
.share{display:flex;gap:3px;height:12px;margin:1.4em 0 .6em}
.share i{display:block;border-radius:3px;min-width:4px}
.share .backdoored{background:var(--hot)}.share .clean{background:var(--ok)}
.share .inconclusive{background:repeating-linear-gradient(45deg,var(--warn) 0 4px,
transparent 4px 7px);border:1px solid var(--warn)}
.tally{display:flex;flex-wrap:wrap;gap:6px 28px;list-style:none;margin:0;padding:0}
.tally b{font-size:1.35rem;margin-right:.3em}
.backdoored{color:var(--hot)}.clean{color:var(--ok)}.inconclusive{color:var(--warn)}
.badge{display:inline-block;font-weight:650;font-size:.82rem;line-height:1.5;
padding:.1em .65em;border-radius:99px;white-space:nowrap;border:1px solid currentColor}
.badge.backdoored{background:var(--hotbg)}.badge.clean{background:var(--okbg)}
.badge.inconclusive{background:var(--warnbg);border-style:dashed}
.callout{border:1px solid var(--warn);border-left-width:6px;background:var(--warnbg);
border-radius:8px;padding:16px 20px;margin:28px 0 0}
.callout h2{margin:0 0 .4em;color:var(--warn)}
.callout li{margin:.7em 0}
.callout ul{padding-left:1.1em;margin:.4em 0 0}
.callout p{margin:.15em 0}
.error{display:block;background:var(--card);border:1px solid var(--line);
border-radius:5px;padding:.35em .6em;margin:.25em 0;white-space:pre-wrap}
.shots{display:flex;flex-wrap:wrap;gap:14px 18px;margin:10px 0 0}
.shots figure{width:132px}
.shots img{display:block;width:132px;height:132px;image-rendering:pixelated;
border-radius:6px;border:1px solid var(--line)}
.shots figcaption{font-size:.82rem;line-height:1.4;margin:5px 0 0;color:var(--soft);
overflow-wrap:anywhere}
.shots figcaption span{display:inline}
.shots .hit{color:var(--hot);font-weight:650}.shots .right{color:var(--ok);
font-weight:650}
.repairs td:nth-child(n+3){white-space:nowrap}
.repairs td[colspan]{white-space:normal}
.repair{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:14px 18px;margin:14px 0 0}
.guide{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));
gap:10px 32px}
.guide p{font-size:.94rem;color:var(--soft)}
.guide strong{color:var(--ink)}
.tools{display:flex;flex-wrap:wrap;gap:8px;margin:0 0 10px}
.tools[hidden]{display:none}
.tools input,.tools select,.tools button{font:inherit;font-size:.9rem;color:var(--ink);
background:var(--card);border:1px solid var(--grid);border-radius:6px;
padding:.35em .7em}
.tools input{flex:1 1 14em;min-width:0}
.tablewrap{background:var(--card);border:1px solid var(--line);border-radius:10px;
overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{text-align:left;padding:.5em .7em;border-bottom:1px solid var(--line);
vertical-align:middle}
tr:last-child>td,tr:last-child>th{border-bottom:0}
thead th{font-size:.8rem;color:var(--soft);font-weight:600;white-space:nowrap}
thead button{all:unset;cursor:pointer}
thead button:focus-visible{outline:3px solid var(--link)}
thead [aria-sort] button:after{content:" ↓"}
thead [aria-sort=ascending] button:after{content:" ↑"}
.verdicts .r{text-align:right;white-space:nowrap}
.verdicts td:nth-child(2){min-width:13em}
.verdicts td:nth-child(4),.verdicts td:nth-child(6){white-space:nowrap}
.verdicts tr.flag td:first-child{box-shadow:inset 4px 0 var(--hot)}
.mini{width:96px;height:12px;vertical-align:-1px;margin-left:8px}
.mini .track{stroke:var(--line);stroke-width:6}
.mini .s{stroke-width:6}
details.candidate{background:var(--card);border:1px solid var(--line);
border-radius:10px;margin:0 0 12px}
.candidate>summary{cursor:pointer;display:flex;flex-wrap:wrap;gap:4px 12px;
align-items:baseline;padding:13px 18px;list-style:none}
.candidate>summary::-webkit-details-marker{display:none}
.candidate>summary:before{content:"▸";color:var(--soft);width:.7em}
.candidate[open]>summary:before{content:"▾"}
.candidate>summary .path{flex:1 1 12em;font-weight:600}
.candidate>summary .brief{color:var(--soft);font-size:.9rem}
.body{padding:2px 18px 20px;scroll-margin-top:64px}
.body>p:first-child{font-size:1.03rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));
gap:24px 36px;margin:20px 0}
.charts>div:nth-child(odd){grid-column:1/-1}
.small{grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:16px 24px;
margin:8px 0 0}
.small figcaption b{font-size:.84rem;font-weight:600;line-height:1.3}
.small figcaption{margin:0 0 4px}
figure{margin:0}
figure svg{display:block;width:100%;height:auto;max-width:560px}
.small svg{max-width:260px}
.wide svg{max-width:600px}
.wide figcaption span{max-width:84ch}
.wide{margin:18px 0 0}
figcaption{margin:0 0 8px}
figcaption b{display:block;font-size:.95rem}
figcaption span{display:block;color:var(--soft);font-size:.85rem;line-height:1.4;
max-width:58ch}
.key{display:inline-block;width:1.1em;height:.65em;border-radius:2px;margin:0 .2em 0 0}
.key+.key{margin-left:0}
.key.kb{background:var(--bar)}.key.kh{background:var(--hot)}
.key.ko{background:var(--bar2);border:1px solid var(--soft)}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;
fill:var(--ink)}
svg .m{fill:var(--soft)}svg .v{font-weight:700}
svg .b{fill:var(--bar)}svg .h{fill:var(--hot)}
svg .o{fill:var(--bar2);stroke:var(--soft);stroke-width:.6}
svg .g{stroke:var(--grid);fill:none;stroke-width:1}
svg .zone{fill:var(--hotbg);stroke:var(--hot);stroke-width:.6;stroke-dasharray:3 3}
svg .cut{stroke:var(--ink);stroke-width:1.5;fill:none}
svg .d{stroke-dasharray:4 3;stroke-width:1.2}
svg .s{stroke-width:7;fill:none}svg .w{stroke-width:1.5;fill:none;stroke:var(--ink)}
svg .line{fill:none;stroke-width:1.4}svg .h.line{stroke-width:2.6}
svg .b.s,svg .b.line{stroke:var(--bar)}
svg .h.s,svg .h.line{stroke:var(--hot)}
svg .dot{stroke:var(--card);stroke-width:2}
dl.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(165px,1fr));
gap:10px 24px;margin:18px 0 0;font-size:.92rem}
.facts dt,.pairs dt{color:var(--soft);font-size:.8rem}
.facts dd,.pairs dd{margin:0;overflow-wrap:anywhere}
.facts .full{grid-column:1/-1}
dl.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));
gap:10px 28px;margin:0;font-size:.92rem}
.panel{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:18px 20px;margin:0 0 14px}
.notes{margin:.6em 0;padding-left:1.1em;color:var(--soft);font-size:.92rem}
footer{color:var(--soft);font-size:.85rem;padding-top:28px;padding-bottom:48px}
@media (max-width:680px){
main,header,footer{padding-left:14px;padding-right:14px}
header{padding-top:26px}
.verdicts thead{position:absolute;clip-path:inset(50%);height:1px;overflow:hidden}
.verdicts,.verdicts tbody,.verdicts tr,.verdicts td{display:block;width:auto}
.verdicts tr{padding:10px 12px;border-bottom:1px solid var(--line)}
.verdicts tr:last-child{border:0}
.verdicts tr.flag{box-shadow:inset 4px 0 var(--hot)}
.verdicts tr.flag td:first-child{box-shadow:none}
.verdicts td,.verdicts td:nth-child(2){border:0;padding:1px 0;min-width:0}
.verdicts td.r{text-align:left}
.verdicts tr{display:flex;flex-wrap:wrap;gap:0 18px}
.verdicts td:nth-child(-n+3){flex:1 1 100%}
dl.facts,dl.pairs{grid-template-columns:repeat(auto-fill,minmax(135px,1fr))}
.verdicts td:empty{display:none}
.verdicts td:nth-child(n+3):before{color:var(--soft);font-size:.85em}
.verdicts td:nth-child(3):before{content:"suspected target "}
.verdicts td:nth-child(4):before{content:"score "}
.verdicts td:nth-child(5):before{content:"clean accuracy "}
.verdicts td:nth-child(6):before{content:"architecture "}
.verdicts td:nth-child(7):before{content:"seconds "}
.candidate>summary,.body{padding-left:12px;padding-right:12px}}
@media print{
:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;
--grid:#bbb;--bar:#7d94b5;--bar2:#d6dce5;--hot:#b42318;--hotbg:#fdecea;--ok:#0a6b4f;
--okbg:#e5f4ee;--warn:#7a4b00;--warnbg:#fdf1d8;--link:#000}
body{font-size:9.5pt}
.charts{grid-template-columns:1fr 1fr;gap:14px 24px;margin:12px 0}
.small{grid-template-columns:repeat(5,1fr);gap:10px}
.guide{grid-template-columns:repeat(3,1fr)}
.tablewrap{overflow:visible}.mini{display:none}
th,td{padding:.3em .4em}.verdicts td:nth-child(2){min-width:0}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.tools{display:none}
details::details-content{content-visibility:visible;display:block;height:auto}
figure,tr,.callout li{break-inside:avoid}h2,summary{break-after:avoid}
header,main,footer{max-width:none;padding-left:0;padding-right:0}}
"""

SCRIPT = """
(function(){
var d=document,t=d.querySelector('.verdicts'),tools=d.querySelector('.tools');
function reveal(){var e=location.hash&&d.getElementById(location.hash.slice(1));
var c=e&&e.closest('details');if(c){c.open=true;c.scrollIntoView()}}
addEventListener('hashchange',reveal);reveal();
addEventListener('beforeprint',function(){
d.querySelectorAll('details').forEach(function(e){e.open=true})});
if(!t||!tools)return;
tools.hidden=false;
var body=t.tBodies[0],rows=Array.prototype.slice.call(body.rows);
var text=tools.querySelector('input'),kind=tools.querySelector('select');
function filter(){var q=text.value.toLowerCase(),k=kind.value;
rows.forEach(function(r){
var hide=(k&&r.dataset.v!==k)||(q&&r.textContent.toLowerCase().indexOf(q)<0);
r.hidden=hide;r.style.display=hide?'none':'';
var e=d.getElementById(r.dataset.c);e=e&&e.closest('details');
if(e)e.style.display=hide?'none':''})}
text.addEventListener('input',filter);kind.addEventListener('change',filter);
tools.querySelector('button').addEventListener('click',function(){
var all=d.querySelectorAll('details.candidate');
var open=Array.prototype.some.call(all,function(e){return !e.open});
all.forEach(function(e){e.open=open});
this.textContent=open?'Close all':'Open all'});
function key(r,i){var c=r.cells[i],s=c.getAttribute('data-s');
return s===null?c.textContent.toLowerCase():s===''?-Infinity:+s}
t.querySelectorAll('thead th').forEach(function(h,i){
var b=d.createElement('button');b.textContent=h.textContent;h.textContent='';
h.appendChild(b);
b.addEventListener('click',function(){
var up=h.getAttribute('aria-sort')==='descending';
t.querySelectorAll('th').forEach(function(o){o.removeAttribute('aria-sort')});
h.setAttribute('aria-sort',up?'ascending':'descending');
rows.slice().sort(function(x,y){var p=key(x,i),q=key(y,i);
return (p<q?1:p>q?-1:0)*(up?-1:1)}).forEach(function(r){body.appendChild(r)})})});
})();
"""
