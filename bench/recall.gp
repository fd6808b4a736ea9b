# recall.gp - the picture of bench/out/recall.csv: gnuplot bench/recall.gp
# One drawing in two formats, light and (-dark) dark. The colours (Okabe and Ito) are told apart by the colour-blind, and
# so are the marks.
csv = "bench/out/recall.csv"
arms = "window sinks block_window_m1 memory_linear memory_delta feedback_m0"
names = "'window' 'window and sinks' 'block window' 'memory, linear rule' 'memory, delta rule' 'feedback rows'"
light = "#999999 #56b4e9 #e69f00 #0072b2 #009e73 #d55e00"
dark = "#999999 #56b4e9 #e69f00 #3a9bdc #1fbf8f #f0702a"
marks = "4 12 10 7 5 9"
mark(i) = int(word(marks, i))
aside(i, by) = by ** (i - (i < 4 ? 2 : 5)) # arms that agree are drawn side by side
has(i) = int(system(sprintf("grep -c '^%s,' %s", word(arms, i), csv))) > 0
rows(i, task, place) = has(i) ? sprintf("< awk -F, '$1==\"%s\" && $2==\"%s\" && $4==\"%s\"' %s", \
  word(arms, i), task, place, csv) : "/dev/null"
longest = int(system(sprintf("awk -F, '$2==\"passkey\" && $3+0>m {m=$3} END {print m+0}' %s", csv)))
set datafile separator ","

do for [theme in "light dark"] { do for [format in "svg png"] {
  colours = theme eq "light" ? light : dark
  paper = theme eq "light" ? "#ffffff" : "#0d1117"
  ink = theme eq "light" ? "#222222" : "#e6e6e6"
  faint = theme eq "light" ? "#e4e4e4" : "#2b3138"
  axis = theme eq "light" ? "#555555" : "#8b949e"
  if (format eq "svg") {
    set terminal svg size 1000,480 font "Helvetica,16" background paper rounded
  } else {
    set terminal pngcairo size 2000,960 font "Helvetica,30" background paper rounded linewidth 2
  }
  set output "bench/out/recall".(theme eq "dark" ? "-dark." : ".").format
  set multiplot
  set border 3 lc rgb axis
  set tics nomirror out scale 0.6 textcolor rgb ink
  set grid y lt 1 lc rgb faint lw 1
  set yrange [-5:106]
  set ytics ("0" 0, "25" 25, "50" 50, "75" 75, "100 %%" 100)
  set key off
  set bars 0
  set ylabel

  set size 0.62, 0.83; set origin 0, 0.17
  set title "A pass key from the start of the text" textcolor rgb ink
  set logscale x 10
  set xrange [330:longest * 1.6]
  set xtics ("512" 512, "2K" 2048, "8K" 8192, "32K" 32768, "128K" 131072, "" 524288 1, "1M" 1e6, \
    "" 5e6 1, "10M" 1e7)
  set xlabel "tokens until it is asked for" textcolor rgb ink
  plot for [i=1:words(arms)] rows(i, "passkey", "start") using ($3*aside(i, 1.22)):($8*100):($9*100):($10*100) \
      with yerrorbars lc rgb word(colours, i) pt mark(i) ps 0.1 lw 1, \
    for [i=1:words(arms)] rows(i, "passkey", "start") using ($3*aside(i, 1.22)):($8*100) \
      with linespoints lc rgb word(colours, i) pt mark(i) ps 1.2 lw 2

  set size 0.37, 0.83; set origin 0.63, 0.17
  set title "Facts held at once" textcolor rgb ink
  set logscale x 4
  set xrange [0.65:98]
  set xtics ("1" 1, "4" 4, "16" 16, "64" 64)
  set xlabel "facts, asked at 8K tokens" textcolor rgb ink
  plot for [i=1:words(arms)] rows(i, "facts", "any") using ($5*aside(i, 1.13)):($8*100):($9*100):($10*100) \
      with yerrorbars lc rgb word(colours, i) pt mark(i) ps 0.1 lw 1, \
    for [i=1:words(arms)] rows(i, "facts", "any") using ($5*aside(i, 1.13)):($8*100) \
      with linespoints lc rgb word(colours, i) pt mark(i) ps 1.2 lw 2

  set size 1, 0.2; set origin 0, -0.01
  unset title; unset border; unset tics; unset xlabel; unset grid; unset logscale
  set xrange [0:1]; set yrange [0:1]
  set key center center horizontal maxrows 2 maxcols 3 samplen 2 Left reverse textcolor rgb ink
  plot for [i=1:words(arms)] (has(i) ? NaN : 1/0) with linespoints lc rgb word(colours, i) \
    pt mark(i) ps 1.1 lw 2.5 title (has(i) ? word(names, i) : "")
  unset multiplot
  set tics
}}
