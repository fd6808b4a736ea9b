# curves.gp - the pictures of bench/out/curves.csv: gnuplot bench/curves.gp
#   curves         perplexity, memory and latency over one axis of tokens
#   memory         keys and values, and resident memory of the process
#   latency        the median token, shaded up to the slowest of a thousand
# Of an arm's two runs, one token a pass and many, they show the one that went farther, latency the
# first. Times are the arm's own: what other processes took of its core is not in them.
#   curves-recall  as curves, for the arms of models that were trained to remember, if there are any
# Each as .svg and .png, light and (-dark) dark. The colours (Okabe and Ito) are told apart by the
# colour-blind; an arm has the same in every picture.
csv = "bench/out/curves.csv"
arms = "dense window sinks recall_window block_window_m1 memory_linear memory_delta feedback_m0"
names = "'dense' 'window' 'window and sinks' 'window' 'block window' \
  'memory, linear rule' 'memory, delta rule' 'feedback rows'"
light = "#000000 #999999 #1f8fd6 #999999 #e69f00 #0072b2 #009e73 #d55e00"
dark = "#f0f0f0 #999999 #56b4e9 #999999 #e69f00 #3a9bdc #1fbf8f #f0702a"
set datafile separator ","

# Which arms there are (by number), whose text ended early, and of which model: 1 the first, 2 others.
# One that was stopped on its way is not drawn; dense ends where its memory does.
farther = int(system(sprintf("awk -F, 'NR>1 && $2>m[$18>1] {m[$18>1]=$2} END {print (m[1]>m[0])+0}' %s", csv)))
many = int(system(sprintf("awk -F, 'NR>1 && $18>m {m=$18} END {print m+0}' %s", csv)))
all_of = int(system(sprintf("awk -F, 'NR>1 && $2>m {m=$2} END {print m+0}' %s", csv)))
singly = int(system(sprintf("awk -F, '$18==1 && $2>m {m=$2} END {print m+0}' %s", csv)))
dense = int(system(sprintf("awk -F, '$1==\"dense\" && $2>m {m=$2} END {print m+0}' %s", csv)))
wide = dense * 8 > all_of # then an axis of equal steps shows all of it
array shown[2] = ["", ""]
array cut[2] = ["", ""]
array trained[2] = [0, 0]
do for [i=1:words(arms)] {
  of = system(sprintf("awk -F, 'NR==2 {f=$14} $1==\"%s\" {m=$14; t=$15; if ($2>x) x=$2} \
    END {print m==\"\" ? 0 : m==f ? 1 : 2, t+0, x+0}' %s", word(arms, i), csv))
  s = int(word(of, 1))
  if (s > 0 && (i == 1 || word(of, 3) > 0.98 * all_of)) {
    shown[s] = shown[s].sprintf(" %d", i)
    trained[s] = int(word(of, 2))
    if (word(of, 3) < 0.98 * all_of) { cut[s] = cut[s].sprintf(" %d", i) }
  }
}

# An arm's rows: tokens, perplexity, kv_bytes, rss_bytes, cpu_p50_s, cpu_p999_s, state_bytes.
# Perplexity is that of the last fifth of the text at each length (of the last tenth on an axis of
# equal steps), so that it is as steady early as late, and cpu_p999_s the largest there. What came
# before 64 tokens, on an axis of equal steps before a 24th of it, is left to the CSV.
number(i) = i eq "" ? 1 : int(i) # gnuplot reads an empty loop's body once
width(k, n) = k == 1 && n > 3 ? 3.2 : 3 + 1.3 * (n - k) # what lies below shows at both sides
colour(i) = word(colours, number(i))
steady = "awk -F, '$1==\"%s\" && ($18>1)==%d {n++; x[n]=$2; s[n]=s[n-1]+$3*($2-x[n-1]); \
  p[n]=q=$13; for (j=n-1; j>1 && x[j-1]>=%g*$2; j--) if (p[j]>q) q=p[j]; \
  if ($2>=%g) print $2 \",\" exp((s[n]-s[j])/($2-x[j])) \",\" $6 \",\" $8 \",\" $12 \",\" q \",\" $7}' %s"
command(i) = sprintf(steady, word(arms, number(i)), far, wide ? 0.9 : 0.8, wide && far ? all_of / 24.0 : 64, csv)
rows(i) = "< ".command(i)
ending(i) = "< ".command(i)." | tail -n 1"
extreme(s, column, which) = real(system("{ ".join(shown[s])." } | awk -F, 'NR==1 {a=b=$".sprintf("%d", column).\
  "} {v=$".sprintf("%d", column)."+0; if (v<a) a=v; if (v>b) b=v} END {print ".which."}'"))
join(list) = words(list) == 0 ? "" : command(word(list, 1))."; ".(words(list) > 1 ? command(word(list, 2))."; " : "").\
  (words(list) > 2 ? command(word(list, 3))."; " : "").(words(list) > 3 ? command(word(list, 4))."; " : "").\
  (words(list) > 4 ? command(word(list, 5))."; " : "")
round_step(v) = v < 1.5 ? 1 : v < 3.5 ? 2 : v < 7.5 ? 5 : 10
step_of(v) = 10**floor(log10(v)) * round_step(v / 10**floor(log10(v)))

pictures = "curves memory latency".(words(shown[2]) ? " curves-recall" : "")
do for [theme in "light dark"] { do for [format in "svg png"] { do for [picture in pictures] {
  s = picture eq "curves-recall" ? 2 : 1
  far = picture eq "latency" ? 0 : farther
  ended = farther && !far ? "" : cut[s]
  longest = far || !farther ? all_of : singly
  panels = picture eq "memory" ? "kv rss" : picture eq "latency" ? "slow" : s == 2 ? "ppl state time" : "ppl kv time"
  n = words(panels)
  array tall[3] = [n == 3 ? 400 : n == 2 ? 320 : 440, n == 3 ? 270 : 320, 270]
  lines = (words(shown[s]) + 1) / 2
  foot = 104 + 34 * lines
  high = foot
  do for [p=1:n] { high = high + tall[p] }
  colours = theme eq "light" ? light : dark
  paper = theme eq "light" ? "#ffffff" : "#0d1117"
  ink = theme eq "light" ? "#222222" : "#e6e6e6"
  faint = theme eq "light" ? "#e4e4e4" : "#2b3138"
  axis = theme eq "light" ? "#555555" : "#8b949e"
  if (format eq "svg") {
    set terminal svg size 800,high font "Helvetica,22" background paper rounded
  } else {
    set terminal pngcairo size 1600,high*2 font "Helvetica,38" background paper rounded linewidth 2
  }
  set output "bench/out/".picture.(theme eq "dark" ? "-dark." : ".").format
  set multiplot
  set border 3 lc rgb axis
  set tics nomirror out scale 0.6 textcolor rgb ink
  set grid y lt 1 lc rgb faint lw 1
  set lmargin at screen 0.155; set rmargin at screen 0.945
  set key off
  if (wide) { set xrange [0:longest * 1.02] } else { set logscale x 10; set xrange [64:longest * 1.06] }

  top = high
  do for [p=1:n] {
    panel = word(panels, p)
    set tmargin at screen (top - 62.0) / high
    set bmargin at screen (top - tall[p] + 8.0) / high
    unset xlabel; unset label; unset arrow
    if (p == n) { set xlabel "tokens read" textcolor rgb ink offset 0, 0.35 }
    if (wide) {
      each = step_of(longest / 4.0)
      set xtics (0 0)
      do for [k=0:int(longest / each)] {
        set xtics add (p < n ? "" : k == 0 ? "0" : sprintf("%gK", k * each / 1e3) k * each)
      }
    } else { if (p == n) {
      set xtics ("100" 100, "1K" 1e3, "10K" 1e4, "100K" 1e5, "1M" 1e6, "10M" 1e7, "100M" 1e8)
    } else {
      set xtics ("" 100, "" 1e3, "" 1e4, "" 1e5, "" 1e6, "" 1e7, "" 1e8)
    }}
    set logscale y 10
    set format y "%g"
    column = panel eq "ppl" ? 2 : panel eq "kv" ? 3 : panel eq "state" ? 7 : panel eq "rss" ? 4 : 5
    low = extreme(s, column, "a"); most = extreme(s, panel eq "slow" ? 6 : column, "b")
    set yrange [low / 1.5:most * (panel eq "ppl" ? 1.25 : 1.5)]
    if (panel eq "ppl") {
      title = "Perplexity"
      set yrange [low / (wide ? 1.9 : 1.1):(most * 1.25 < 5 ? 5 : most * 1.25)]
      if (most > 50 && most < 100 * low) {
        set ytics ("1" 1, "2" 2, "5" 5, "10" 10, "20" 20, "50" 50, "100" 100, "200" 200, "500" 500, "1000" 1e3)
      }
      if (most >= 100 * low) {
        set ytics ("2" 2, "5" 5, "10" 10, "30" 30, "100" 100, "300" 300, "1000" 1e3, "3000" 3e3, "10K" 1e4)
      }
      if (most <= 50 && most < 100 * low) {
        set ytics ("1" 1, "2" 2, "3" 3, "4" 4, "5" 5, "7" 7, "10" 10, "15" 15, "20" 20, "30" 30, "50" 50)
      }
    }
    if (panel eq "kv" || panel eq "state") {
      title = panel eq "kv" ? "Bytes of keys and values" : "Bytes of state"
      if (wide) { unset logscale y; set yrange [0:most * 1.08] }
      if (!wide && most / low < 3) { set yrange [low / 5:most * 5] }
      if (wide) { set ytics step_of(most / 3.0); set format y "%.0s %cB" } else { set ytics ("1 KB" 1e3, "10 KB" 1e4, "100 KB" 1e5, "1 MB" 1e6, "10 MB" 1e7, "100 MB" 1e8, "1 GB" 1e9, "10 GB" 1e10) }
    }
    if (panel eq "rss") {
      title = "Resident memory of the process"
      unset logscale y
      set yrange [0:most * 1.08]
      set ytics step_of(most / 4.0)
      set format y "%.0s %cB"
    }
    if (panel eq "time" || panel eq "slow") {
      title = panel eq "slow" ? "CPU time per token, median, shaded to the 99.9th percentile" : \
        far ? sprintf("CPU time per token, median, %d a pass", many) : "CPU time per token, median"
      if (most / low < 3) { set yrange [low / 2:most * 2] }
      if (wide) {
        unset logscale y
        set yrange [0:most * 1.08]
        set ytics step_of(most / 4.0)
        set format y "%.0s %cs"
      }
      if (!wide && most / low < 100) {
        set ytics ("1 µs" 1e-6, "2 µs" 2e-6, "5 µs" 5e-6, "10 µs" 1e-5, "20 µs" 2e-5, "50 µs" 5e-5, "100 µs" 1e-4, \
          "200 µs" 2e-4, "500 µs" 5e-4, "1 ms" 1e-3, "2 ms" 2e-3, "5 ms" 5e-3, "10 ms" 1e-2, "20 ms" 0.02, "50 ms" 0.05, \
          "100 ms" 0.1, "200 ms" 0.2, "500 ms" 0.5, "1 s" 1, "2 s" 2, "5 s" 5, "10 s" 10)
      }
      if (!wide && most / low >= 100) {
        set ytics ("1 µs" 1e-6, "10 µs" 1e-5, "100 µs" 1e-4, "1 ms" 1e-3, "10 ms" 1e-2, "100 ms" 0.1, "1 s" 1, "10 s" 10)
      }
    }
    set label 1 title at screen 0.02, screen (top - 32.0) / high left textcolor rgb ink
    if (picture ne "memory" && trained[s] > 64 && trained[s] < longest) {
      set arrow 1 from trained[s], graph 0 to trained[s], graph 1 nohead dt (6, 6) lc rgb axis lw 1
      near = !wide && log(trained[s] / 64.0) / log(longest / 64.0) < 0.18
      if (p == 1 && near) {
        set label 2 "trained\nlength" at trained[s], graph 0.94 offset 0.5, 0 left textcolor rgb axis
      }
      if (p == 1 && wide) {
        set label 2 "trained length" at trained[s], graph 0.038 offset 0.8, 0 left textcolor rgb axis
      }
      if (p == 1 && !wide && !near) {
        set label 2 "trained\nlength" at trained[s], graph 0.94 offset -0.5, 0 right textcolor rgb axis
      }
    }
    shaded = panel eq "slow" ? shown[s] : ""
    others = words(shown[s])
    plot for [k=1:words(shaded)] rows(word(shaded, k)) using 1:5:6 \
        with filledcurves fc rgb colour(word(shaded, k)) fs transparent solid 0.22 noborder, \
      for [k=1:others] rows(word(shown[s], k)) using 1:column \
        with lines lc rgb colour(word(shown[s], k)) lw width(k, others), \
      for [k=1:words(ended)] ending(word(ended, k)) using 1:column \
        with points lc rgb colour(word(ended, k)) pt 2 lw 4 ps 1.2
    top = top - tall[p]
  }

  # the legend: two columns
  set tmargin at screen 0.01; set bmargin at screen 0
  set lmargin at screen 0; set rmargin at screen 1
  unset border; unset tics; unset xlabel; unset grid; unset logscale; unset label; unset arrow
  set xrange [0:1]; set yrange [0:1]
  do for [k=1:words(shown[s])] {
    i = int(word(shown[s], k))
    at_x = (k - 1) % 2 ? 0.54 : 0.06
    at_y = (foot - 110.0 - 34 * ((k - 1) / 2)) / high
    set arrow k + 1 from screen at_x, screen at_y to screen at_x + 0.06, screen at_y nohead \
      lc rgb word(colours, i) lw 5
    set label k + 1 word(names, i).(strstrt(ended." ", sprintf(" %d ", i)) ? ", to its budget (×)" : "") \
      at screen at_x + 0.075, screen at_y left textcolor rgb ink
  }
  plot NaN
  unset multiplot
  set tics
}}}
