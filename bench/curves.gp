# curves.gp - the pictures of bench/out/curves.csv: gnuplot bench/curves.gp
#   curves         perplexity, memory and latency over one axis of tokens
#   memory         keys and values, and resident memory of the process
#   latency        the median token, and up to the slowest of a thousand
#   curves-recall  as curves, for the arms of models that were trained to remember, if there are any
# Each as .svg and .png, light and (-dark) dark. The colours (Okabe and Ito) are told apart by the
# colour-blind; an arm has the same in every picture.
csv = "bench/out/curves.csv"
arms = "dense window sinks sinks_text recall_window block_window_m1 memory_linear memory_delta feedback_m0"
names = "'dense' 'window' 'window and sinks' 'sinks, text positions' 'window' 'block window' \
  'memory, linear rule' 'memory, delta rule' 'feedback rows'"
light = "#000000 #999999 #56b4e9 #cc79a7 #999999 #e69f00 #0072b2 #009e73 #d55e00"
dark = "#f0f0f0 #999999 #56b4e9 #cc79a7 #999999 #e69f00 #3a9bdc #1fbf8f #f0702a"
n_arms = words(arms)
first = system(sprintf("awk -F, 'NR==2 {print $12}' %s", csv))
array set_of[n_arms] # 0 no rows, 1 the first model, 2 others
array end_x[n_arms]
array trained[2]
trained[1] = 0; trained[2] = 0
do for [i=1:n_arms] {
  of = system(sprintf("awk -F, '$1==\"%s\" {m=$12; t=$13; x=$2} END {print m==\"\" ? 0 : m==\"%s\" ? 1 : 2, t+0, x+0}' %s", \
    word(arms, i), first, csv))
  set_of[i] = int(word(of, 1))
  end_x[i] = int(word(of, 3))
  if (set_of[i]) { trained[set_of[i]] = int(word(of, 2)) }
}
longest = int(system(sprintf("awk -F, 'NR>1 && $2>m {m=$2} END {print m+0}' %s", csv)))

# Rows of an arm. Perplexity is the mean loss of the last fifth of the text at each length, so that
# it is as steady early as late; what is measured before 64 tokens is left to the CSV.
steady = "awk -F, '$1==\"%s\" {n++; x[n]=$2; s[n]=s[n-1]+$3*($2-x[n-1]); \
  for (j=n-1; j>0 && x[j]>0.8*$2; j--); \
  if ($2>=64) print $2 \",\" exp((s[n]-s[j])/($2-x[j])) \",\" $6 \",\" $8 \",\" $10 \",\" $11}' %s"
rows(i) = "< ".sprintf(steady, word(arms, i), csv)
ending(i) = "< ".sprintf(steady, word(arms, i), csv)." | tail -n 1"
shown(i, s) = set_of[i] == s
cut(i, s) = set_of[i] == s && end_x[i] < 0.98 * longest
set datafile separator ","

pictures = "curves memory latency".(system(sprintf("awk -F, -v f='%s' 'NR>1 && $12!=f {n=1} END {print n+0}' %s", first, csv)) + 0 > 0 ? " curves-recall" : "")

do for [theme in "light dark"] { do for [format in "svg png"] { do for [picture in pictures] {
  which = picture eq "curves-recall" ? 2 : 1
  panels = picture eq "memory" ? "kv rss" : picture eq "latency" ? "slow" : "ppl kv time"
  n = words(panels)
  head = 8; each = 300; foot = 170 + (which == 2 ? 34 : 0)
  if (n == 1) { each = 440 }
  high = head + n * each + foot
  colours = theme eq "light" ? light : dark
  paper = theme eq "light" ? "#ffffff" : "#0d1117"
  ink = theme eq "light" ? "#222222" : "#e6e6e6"
  faint = theme eq "light" ? "#e4e4e4" : "#2b3138"
  axis = theme eq "light" ? "#555555" : "#8b949e"
  if (format eq "svg") {
    set terminal svg size 800,high font "Helvetica,22" background paper rounded
  } else {
    set terminal pngcairo size 1600,high*2 font "Helvetica,40" background paper rounded linewidth 2
  }
  set output "bench/out/".picture.(theme eq "dark" ? "-dark." : ".").format
  set multiplot
  set border 3 lc rgb axis
  set tics nomirror out scale 0.6 textcolor rgb ink
  set grid y lt 1 lc rgb faint lw 1
  set lmargin at screen 0.145; set rmargin at screen 0.965
  set key off
  set logscale x 10
  set xrange [64:longest * 1.06]
  set xtics ("100" 100, "1K" 1e3, "10K" 1e4, "100K" 1e5, "1M" 1e6, "10M" 1e7, "100M" 1e8)

  do for [p=1:n] {
    panel = word(panels, p)
    top = 1 - (head + (p - 1.0) * each) / high
    set tmargin at screen top - 46.0 / high
    set bmargin at screen top - (each - 14.0) / high
    set format x ""
    unset xlabel
    unset label; unset arrow
    if (p == n) {
      set format x "%g"
      set xtics ("100" 100, "1K" 1e3, "10K" 1e4, "100K" 1e5, "1M" 1e6, "10M" 1e7, "100M" 1e8)
      set xlabel "tokens read" textcolor rgb ink offset 0, 0.2
    } else {
      set xtics ("" 100, "" 1e3, "" 1e4, "" 1e5, "" 1e6, "" 1e7, "" 1e8)
    }
    set logscale y 10
    set yrange [*:*]
    set ytics auto
    if (panel eq "ppl") {
      title = "Perplexity"
      set yrange [(which == 2 ? 2 : 1.5):*<10]
      set ytics ("2" 2, "5" 5, "10" 10, "20" 20, "50" 50, "100" 100, "500" 500, "2000" 2000, "10K" 1e4)
      column = 2
    }
    if (panel eq "kv") {
      title = "Keys and values, bytes"
      set ytics ("1 KB" 1e3, "10 KB" 1e4, "100 KB" 1e5, "1 MB" 1e6, "10 MB" 1e7, "100 MB" 1e8, "1 GB" 1e9, "10 GB" 1e10)
      column = 3
    }
    if (panel eq "rss") {
      title = "Resident memory of the process"
      unset logscale y
      set yrange [0:*]
      set ytics auto
      set format y "%.0s %cB"
      column = 4
    }
    if (panel eq "time" || panel eq "slow") {
      title = panel eq "time" ? "Time per token, median" : "Time per token: median, shaded to the slowest of a thousand"
      set ytics ("1 µs" 1e-6, "10 µs" 1e-5, "20" 2e-5 1, "50" 5e-5 1, "100 µs" 1e-4, "1 ms" 1e-3, "10 ms" 1e-2, "100 ms" 0.1, "1 s" 1, "10 s" 10)
      column = 5
    }
    set label 1 title at screen 0.02, screen top - 22.0 / high left textcolor rgb ink
    if (trained[which] > 64 && panel ne "rss") {
      set arrow 1 from trained[which], graph 0 to trained[which], graph 1 nohead dt (4, 4) lc rgb axis lw 1
      if (p == 1) {
        set label 2 "trained length" at trained[which], graph 0.94 offset 0.4, 0 left textcolor rgb axis
      }
    }
    plot for [i=1:n_arms] (panel eq "slow" && shown(i, which) ? rows(i) : "/dev/null") using 1:5:6 \
        with filledcurves fc rgb word(colours, i) fs transparent solid 0.16 noborder, \
      for [i=1:n_arms] (shown(i, which) ? rows(i) : "/dev/null") using 1:column \
        with lines lc rgb word(colours, i) lw 3, \
      for [i=1:n_arms] (cut(i, which) ? ending(i) : "/dev/null") using 1:column \
        with points lc rgb word(colours, i) pt 2 lw 3 ps 0.9
    set format y "%g"
  }

  set tmargin at screen 0.98 * (foot - 84.0) / high
  set bmargin at screen 4.0 / high
  set lmargin at screen 0.02; set rmargin at screen 0.98
  unset border; unset tics; unset xlabel; unset grid; unset logscale; unset label; unset arrow
  set xrange [0:1]; set yrange [0:1]
  set key center center horizontal maxcols 2 samplen 1.6 Left reverse textcolor rgb ink
  plot for [i=1:n_arms] (shown(i, which) ? NaN : 1/0) with lines lc rgb word(colours, i) lw 4 \
    title (shown(i, which) ? word(names, i).(cut(i, which) ? ", to its budget ×" : "") : "")
  unset multiplot
  set tics
}}}
