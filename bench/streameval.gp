# streameval.gp - the picture of bench/out/streameval.csv: gnuplot bench/streameval.gp
# Bars are 95 % intervals. Colours (Okabe and Ito) and marks are told apart by the colour-blind.
csv = "bench/out/streameval.csv"
arms = "dense window sinks"
names = "'dense' 'window' 'with sinks'"
light = "#000000 #999999 #1f8fd6"
dark = "#f0f0f0 #999999 #56b4e9"
marks = "4 12 7"
rows(i) = sprintf("< awk -F, '$1==\"%s\"' %s", word(arms, i), csv)
number(expression) = real(system(sprintf("awk -F, 'NR>1 {%s} END {print m+0}' %s", expression, csv)))
longest = number("if ($2>m) m=$2")
trained = number("m=$9")
step = number("if (!m || $2<m) m=$2") # a row stands for the step before its length
set datafile separator ","

do for [theme in "light dark"] { do for [format in "svg png"] {
  paper = theme eq "light" ? "#ffffff" : "#0d1117"
  ink = theme eq "light" ? "#222222" : "#e6e6e6"
  faint = theme eq "light" ? "#e4e4e4" : "#2b3138"
  axis = theme eq "light" ? "#555555" : "#8b949e"
  colours = theme eq "light" ? light : dark
  if (format eq "svg") {
    set terminal svg size 800,480 font "Helvetica,22" background paper rounded
  } else {
    set terminal pngcairo size 1600,960 font "Helvetica,38" background paper rounded linewidth 2
  }
  set output "bench/out/streameval".(theme eq "dark" ? "-dark." : ".").format
  set border 3 lc rgb axis
  set tics nomirror out scale 0.6 textcolor rgb ink
  set grid y lt 1 lc rgb faint lw 1
  set bars 0
  set title "Right about the line 20 lines back" textcolor rgb ink
  set xlabel "tokens read" textcolor rgb ink
  set xrange [0:longest]
  set yrange [0:100]
  set xtics (0 0)
  do for [k=0:int(longest / 4096)] { set xtics add (k ? sprintf("%dK", 4 * k) : "0" 4096 * k) }
  set ytics ("0" 0, "25" 25, "50" 50, "75" 75, "100 %%" 100)
  set bmargin screen 0.35
  set key at screen 0.5, screen 0.05 center center horizontal maxrows 1 samplen 2 textcolor rgb ink
  unset arrow; unset label
  if (trained < longest) {
    set arrow 1 from trained, graph 0 to trained, graph 1 nohead dt (6, 6) lc rgb axis lw 1
    set label 1 "trained length" at trained, graph 0.94 offset 0.6, 0 left textcolor rgb axis
  }
  plot for [i=1:3] rows(i) using ($2-step/2+(i-2)*step*0.05):($5*100):($6*100):($7*100) \
      with yerrorbars lc rgb word(colours, i) pt int(word(marks, i)) ps 0.1 lw 1.5 notitle, \
    for [i=1:3] rows(i) using ($2-step/2+(i-2)*step*0.05):($5*100) \
      with linespoints lc rgb word(colours, i) pt int(word(marks, i)) ps 1.1 lw 4 title word(names, i)
}}
