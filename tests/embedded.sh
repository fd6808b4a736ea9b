#!/bin/sh
# embedded.sh: what the header costs a microcontroller, measured and told as it is: RAM, code,
# stack, and what it asks of libc. Usage: tests/embedded.sh
# Goals that are not reached are named with the distance; a figure that grows beyond the bound
# behind it fails, so that it cannot get worse unseen.
cd "$(dirname "$0")/.." || exit 1
. tests/rows.sh

m4="arm-none-eabi-gcc -std=c99 -Wall -Wextra -Wpedantic -Werror -mcpu=cortex-m4 -mthumb \
  -mfloat-abi=hard -mfpu=fpv4-sp-d16 --specs=picolibc.specs -I."
lean="-DLONGCTX_NO_DISPATCH -DLONGCTX_NO_STDIO"
header="echo '#include \"longctx.h\"' > \$own/header.c && $m4 -DLONGCTX_IMPLEMENTATION"

# ---- RAM: the linker script has 32 KB for block, variables, libc and 4 KB of stack ---------------

tokens=500
row "06_static.c in 32 KB of RAM, Cortex-M4F (emulated)" "arm-none-eabi-gcc qemu-system-arm cc" "
  cc -std=c99 -O2 -I. -DTOKENS=$tokens -o \$own/here examples/06_static.c && \$own/here > \$own/want
  $m4 -Os -DLONGCTX_NO_DISPATCH -DTOKENS=$tokens --oslib=semihost --crt0=hosted \
    -Wl,--defsym=__flash=0 -Wl,--defsym=__flash_size=0x40000 -Wl,--defsym=__ram=0x20000000 \
    -Wl,--defsym=__ram_size=0x8000 -Wl,--defsym=__stack_size=0x1000 \
    -o \$own/there.elf examples/06_static.c -lm &&
  qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel \$own/there.elf > \$own/got 2>&1 || exit 1
  diff \$own/want \$own/got || exit 1
  arm-none-eabi-size \$own/there.elf | awk 'NR == 2 {
    print \"block, variables and libc \" \$2 + \$3 \", stack 4096, of 32768; right numbers\" }'"

# ---- code ----------------------------------------------------------------------------------------

code() {                                               # code NAME FLAGS GOAL BOUND
  row "$1" arm-none-eabi-gcc "
    $header -Os $2 -c \$own/header.c -o \$own/header.o &&
    arm-none-eabi-size \$own/header.o | awk 'NR == 2 { over = \$1 - $3
      print \$1 \" bytes of text; goal $3: \" (over > 0 ? \"missed by \" over : \"kept\")
      exit \$1 > $4 }'"
}

code "code at -Os, Cortex-M4F, no dispatch, no stdio" "$lean" 20480 32700
code "code at -Os, Cortex-M4F, no dispatch" "-DLONGCTX_NO_DISPATCH" 20480 34700
code "code at -Os, Cortex-M4F, as it comes" "" 20480 34700

# What each room of the header takes, constants aside.
row "code by room, Cortex-M4F, no dispatch, no stdio" arm-none-eabi-gcc "
  $header -Os -g $lean -c \$own/header.c -o \$own/header.o &&
  awk '/^.. == [0-9]+ [A-Z ]+ ==/ { print FNR, \$4 }' longctx.h > \$own/rooms &&
  arm-none-eabi-nm -lS --defined-only -t d \$own/header.o | awk -v rooms=\$own/rooms '
    BEGIN { while ((getline line < rooms) > 0) {
        split(line, x, \" \"); at[++n] = x[1]; room[n] = x[2] } }
    NF >= 5 { sub(/.*:/, \"\", \$5)
      for (i = n; i > 1 && at[i] > \$5 + 0; i--);
      sum[i] += \$2 }
    END { printf \"bytes:\"
      for (i = 1; i <= n; i++) if (sum[i]) printf \" %s %d\", tolower(room[i]), sum[i]
      print \"\" }'"

# ---- stack ---------------------------------------------------------------------------------------

stack() {                                              # stack NAME COMPILE FRAME_BOUND PATH_BOUND
  row "stack, $1" "${2%% *}" "
    echo '#include \"longctx.h\"' > \$own/header.c &&
    (cd \$own && $2 -I'$PWD' -DLONGCTX_IMPLEMENTATION -fcallgraph-info=su -c header.c) &&
    awk -f tests/stack.awk longctx.h \$own/header.ci > \$own/said; code=\$?; cat \$own/said
    [ \$code -eq 0 ] && tail -n 1 \$own/said | awk '{ exit \$3 + 0 > $3 || \$6 + 0 > $4 }' || exit 1
    echo \"\$(tail -n 1 \$own/said); goals 512 and 2048; \$(grep '^above' \$own/said)\""
}

stack "Cortex-M4F at -Os, no dispatch, no stdio" "$m4 -Os $lean" 512 2048
stack "x86-64 at -O2, gcc 12" "gcc-12 -std=c99 -O2" 512 2048

# ---- what it asks for ----------------------------------------------------------------------------

row "libc: memcpy, memset, memcmp and nothing else" arm-none-eabi-gcc "
  $header -Os $lean -c \$own/header.c -o \$own/header.o &&
  arm-none-eabi-nm -u \$own/header.o | awk '{ print \$2 }' | grep -v '^__aeabi_' | sort > \$own/asks
  printf 'memcmp\nmemcpy\nmemset\n' | diff - \$own/asks && echo 'memcmp, memcpy, memset'"

row "no variables: nothing of it lies in RAM but the block" arm-none-eabi-gcc "
  $header -Os $lean -c \$own/header.c -o \$own/header.o &&
  arm-none-eabi-size \$own/header.o | awk 'NR == 2 { print \$2 \" bytes of data, \" \$3 \" of bss\"
    exit \$2 + \$3 > 0 }'"

# A call into the soft library for double, from anywhere but where a desc is read.
row "no double arithmetic in attend and commit, Cortex-M4F" "arm-none-eabi-gcc" "
  $header -Os $lean -c \$own/header.c -o \$own/header.o &&
  arm-none-eabi-objdump -dr \$own/header.o | awk '
    /^[0-9a-f]+ </ { f = \$2; gsub(/[<>:]/, \"\", f) }
    /__aeabi_(d|f2d|i2d|ul2d|l2d|ui2d)/ { if (!((f) in seen)) { seen[f] = 1; print f } }' |
    sort > \$own/users
  cat \$own/users
  ! grep -e scalar -e attend -e commit -e part -e feedback -e room \$own/users || exit 1
  echo \"double only in \$(tr '\\n' ' ' < \$own/users)\""

rows_end
