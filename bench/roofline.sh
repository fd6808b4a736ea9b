#!/bin/sh
# roofline.sh: a picture of bench/kernels' CSV: our points under the machine's roof.
# Usage: bench/roofline.sh CSV NAME      writes NAME.svg, NAME.png and the same for dark pages,
# NAME-dark; MACHINE= names the machine.
# x: flop per byte of keys and values; y: flop per second, as the CSV counts both. One thread, the
# best instruction set of the CSV; the plain loop in grey. bfloat16 is left out: it lies on float16.
if ! command -v gnuplot > /dev/null; then
  echo "no picture: gnuplot is not installed"
  exit 0
fi
csv=$1 name=$2
if ! awk -F, '$3 == "read" && $4 == 1 && $1 ~ /^D[2-5]$/ { read = 1 }
    $1 == "fma" && $9 > 0 { fma = 1 } END { exit !(read && fma) }' "$csv"
then
  echo "no picture: the run has not measured the machine's limits"
  exit 0
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

cpu() { sed -n "s/^$1[[:space:]]*: //p" /proc/cpuinfo 2> /dev/null | head -n 1; }
machine=${MACHINE:-$(cpu 'model name')}
[ -n "$machine" ] || machine=$(uname -m)
day=$(date -r "$csv" +%F)
isa=$(awk -F, 'NR > 1 && $4 == 1 { has[$3] = 1 }
  END { n = split("avx512 avx2 neon wasm sse2", best, " ")
        for (i = 1; i <= n; ++i) if (best[i] in has) { print best[i]; exit } }' "$csv")

# Points by type, roofs, and labels moved apart where they would overlap: those of points at the
# same x stand in one column, in the order of their points, a line of text apart.
awk -F, -v work="$work" -v isa="$isa" '
  function log10(x) { return log(x) / log(10) }
  function median(list, n,   i, j, t) {
    for (i = 2; i <= n; ++i)
      for (j = i; j > 1 && list[j - 1] > list[j]; --j) {
        t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
      }
    return list[int((n + 1) / 2)]
  }
  NR == 1 || $4 != 1 { next }
  $1 == "fma" && $3 == isa { fma = $9; next }
  $1 == "dots" { dots = $9; next }
  $1 ~ /-/ || $2 == "bfloat16" { next }
  $3 == "read" && $1 ~ /^D[2-5]$/ { cold[++colds] = $8 }
  $3 == "read" && $1 == "D1" && $2 == "float16" { hot = $8 }
  $3 == isa || $3 == "naive" && !($1 in plain) {
    type = $3 == isa ? $2 : "plain"
    if (type == "plain") plain[$1] = 1
    x = $9 / $8; y = $9
    print x, y > (work "/" type)
    n++; at[n] = log10(x); up[n] = log10(y); text[n] = $1; kind[n] = type
  }
  END {
    out = work "/labels"
    for (i = 2; i <= n; ++i)                           # by column, then upwards
      for (j = i; j > 1; --j) {
        apart = at[j] - at[j - 1]
        if (apart > 0.06 || (apart > -0.06 && up[j] >= up[j - 1])) break
        t = at[j]; at[j] = at[j-1]; at[j-1] = t
        t = up[j]; up[j] = up[j-1]; up[j-1] = t
        t = text[j]; text[j] = text[j-1]; text[j-1] = t
        t = kind[j]; kind[j] = kind[j-1]; kind[j-1] = t
      }
    line = 0.088                                       # decades that a line of text is high
    for (i = 1; i <= n; i = last + 1) {
      for (last = i; last < n && at[last + 1] - at[last] < 0.06; ++last) ;
      blocks = 0
      for (j = i; j <= last; ++j) {                    # neighbours that touch share their middle
        blocks++; size[blocks] = 1; mid[blocks] = up[j]
        while (blocks > 1 &&
               mid[blocks] - mid[blocks - 1] < line * (size[blocks] + size[blocks - 1]) / 2) {
          a = size[blocks - 1]; b = size[blocks]
          mid[blocks - 1] = (mid[blocks - 1] * a + mid[blocks] * b) / (a + b)
          size[blocks - 1] = a + b
          blocks--
        }
      }
      j = i
      for (b = 1; b <= blocks; ++b)
        for (a = 0; a < size[b]; ++a) {
          y = mid[b] + (a - (size[b] - 1) / 2) * line
          side = 1                                     # left of its point, where one is right of it
          for (c = last + 1; c <= n; ++c)
            if (at[c] - at[j] < 0.25 && up[c] - y < line && y - up[c] < line) side = -1
          printf "set label \"%s\" at %.5g,%.5g %s font \",14\" textcolor rgb ink_%s boxed front\n",
            text[j], 10 ^ (at[j] + 0.08 * side), 10 ^ y, (side > 0 ? "left" : "right"),
            kind[j] > out
          printf "set arrow from %.5g,%.5g to %.5g,%.5g nohead lw 1 lc rgb \"#a0a0a0\" back\n",
            10 ^ (at[j] + 0.04 * side), 10 ^ up[j], 10 ^ (at[j] + 0.07 * side), 10 ^ y > out
          j++
        }
    }
    printf "fma = %g; dots = %g; cold = %g; hot = %g\n", fma, dots, median(cold, colds), hot > out
  }' "$csv"
for type in float32 float16 int8 plain; do
  [ -f "$work/$type" ] || echo "NaN NaN" > "$work/$type"
done

cat > "$work/plot" << END
dark = theme eq "dark"
paper = dark ? "#0d1117" : "#ffffff"
roof = dark ? "#d0d4da" : "#303030"
faint = dark ? "#9198a1" : "#505050"
ink_float32 = dark ? "#56b4e9" : "#0072b2"; ink_float16 = dark ? "#f0702a" : "#d55e00"
ink_int8 = dark ? "#1fbf8f" : "#00795a"; ink_plain = dark ? "#8b949e" : "#767676"
set style textbox opaque noborder fillcolor rgb paper margins 0.4,0.2
load "$work/labels"
top = dots > fma ? dots : fma
set logscale xy
set xrange [0.33:4096]
set yrange [2:4 * top]
set lmargin at screen 0.105
set rmargin at screen 0.975
set bmargin at screen 0.215
set tmargin at screen 0.88
set border 3 lc rgb roof
set tics nomirror textcolor rgb roof
set xtics ("1/2" 0.5, "1" 1, "2" 2, "4" 4, "8" 8, "32" 32, "128" 128, "512" 512, "2,048" 2048)
set ytics ("3" 3, "10" 10, "30" 30, "100" 100, "300" 300, "1,000" 1000)
set xlabel "operations per byte of keys and values read" offset 0,0.3 textcolor rgb roof
set label "GFLOP/s (int8: Gop/s)" at screen 0.02,0.915 left textcolor rgb roof
set title "Attention under the machine's roof" offset 0,0.7 font ",20" textcolor rgb roof
set label "Decode: D1 1,024 keys, D2 4,096, D3 32 KV heads, D4 head_dim 64, D5 16,384 keys, \
D6 one KV head," at screen 0.5,0.082 center textcolor rgb faint font ",13" noenhanced
set label "D7 3 heads each. Prefill: P1 window 1,024, P2 causal, P3 chunk of 64. S: head_dim. \
D1, D6, S: in cache" at screen 0.5,0.052 center textcolor rgb faint font ",13" noenhanced
set label "$machine, 1 thread, $isa, $day" at screen 0.5,0.022 center \
  textcolor rgb faint font ",13" noenhanced
set key at graph 0.985,0.03 right bottom reverse Left samplen 1 spacing 1.15 textcolor rgb roof
turn = atan((0.665 * 900 / log10(2 * top)) / (0.87 * 1000 / 4.0939)) * 180 / pi
set label sprintf("read %.0f GB/s", cold) at 0.8*sqrt(fma*top)/cold,1.25*0.8*sqrt(fma*top) center \
  rotate by turn textcolor rgb roof font ",15"
if (hot > 1.5*cold) set label sprintf("in cache %.0f GB/s", hot) \
  at 0.4*fma/hot,1.38*0.4*fma center rotate by turn textcolor rgb faint font ",15"
set label sprintf("fused multiply-add %.0f GFLOP/s", fma) at 3900,fma*1.22 right textcolor rgb roof
if (dots > 0) set label sprintf("int8 dots %.0f Gop/s", dots) at 3900,dots*1.22 right \
  textcolor rgb ink_int8
set arrow from 0.33,0.33*cold to top/cold,top nohead lw 2.5 lc rgb roof
set arrow from fma/cold,fma to 4096,fma nohead lw 2.5 lc rgb roof
if (hot > 1.5*cold) set arrow from 0.33,0.33*hot to 0.58*fma/hot,0.58*fma nohead lw 1.5 dt 2 lc rgb faint
if (dots > 0) set arrow from dots/cold,dots to 4096,dots nohead lw 2.5 dt 4 lc rgb ink_int8
do for [kind in "svg png"] {
  size = kind eq "svg" ? 0.5 : 1
  if (kind eq "svg") {
    set terminal svg size 1000,900 dynamic enhanced font "DejaVu Sans,17" fontscale 1.3333 \\
      background paper
  } else {
    set terminal pngcairo size 1000,900 enhanced font "DejaVu Sans,17" background paper
  }
  set output "$name" . (dark ? "-dark." : ".") . kind
  plot \\
    "$work/plain" with points pt 2 ps 1.6*size lw 2.5 lc rgb ink_plain \\
      title "plain loop, float32", \\
    "$work/float32" with points pt 7 ps 2*size lc rgb ink_float32 title "float32", \\
    "$work/float16" with points pt 5 ps 1.9*size lc rgb ink_float16 title "float16", \\
    "$work/int8" with points pt 9 ps 2.3*size lc rgb ink_int8 title "int8"
}
END
for theme in light dark; do
  gnuplot -e "theme = '$theme'" "$work/plot" || exit 1
done
for svg in "$name.svg" "$name-dark.svg"; do
  sed 's/font-family="DejaVu Sans"/font-family="DejaVu Sans, Verdana, Helvetica, sans-serif"/' \
    "$svg" > "$work/svg" && cp "$work/svg" "$svg"
done
echo "$name.svg $name.png"
