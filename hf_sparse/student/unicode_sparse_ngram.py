"""The code points of Unicode 14.0.0: class and lower case of each, pinned so that no Python changes them.

Written by `python -m hf_sparse.vocabulary.unicode_table`; do not edit. The classes are those of the word rule in
`words_sparse_ngram.py`. Both strings are base-85 of little-endian base-128 numbers (high bit: more digits follow).
"""

import base64
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

UNICODE_VERSION: Final = "14.0.0"
SEPARATOR: Final = 0
LETTER: Final = 1
ALONE: Final = 2
DROPPED: Final = 3

# One number a run of equal classes: length * 4 + class.
_CLASS_RUNS: Final = (
    "gaJM&9%&K<25AzA0VV|s2NDSe1r7-Y4F+8XeFmux5-~az9t8#kM%4ob2?!Ae1rQ1a1`PxS1W^Rd0tT%F2DJqQnE?m|8l?dW2o40b0R{yI2?hxU"
    "1t4t@5eh6DDlG;F4yghXnF9tP2L>qyO$r4%1PAQ_2$cgk*#Qy-2n7nc0SG<>aR>$kEfiq}83YR$sR9Ru1PUnzO#~qb2?$vP9Rvjo5eOv+2?!A&"
    "1rP}Y6$mj3843jk1qclU84w8wSp*#f2?PlQ2?zxQ6%Yvs4GaYw5d;MsK?W!d1SJFw1X%<f1PKHc2q^>&1PurUJP`;f3LG5-4Fn+w2?$vP9Rvvk"
    "6$m8=2?z}w4G;+g6$mK?9ViI|84L{s5ex|g1q2BU2@DMkF%T6D4FnMg1sDZ5H6j!>1PugT1VIQT1Pufc90>#s2n7fc2q_!}9R?8wAp{KsT?8ov"
    "6$m8+4FnM!2^a|k5eO*+2{bhX4Ft^r1Pufg1`t6AO$HeR4FpLHVFV=v1qdAs1rQko1q2}&DF_J$FzEph20aET3X}l}1O)^Y1YraP1YHOf1O)^c"
    "2q_2=fB^+w2^vub1qKBM1rjL)kpU1<21x{w0R$oi8U!|!0jUBSxdIBA0R#mU1qiJH2DJ(V5eOXw1q2ZYr2zyH2!#Oz5eOXw1q2ZYJp|<e1Q7_0"
    "0tgKzQ4B#U7}){{83+ck6ADEHX$lOj0uC)4StMBsBvCLm1PufUFwp`I1riAeDHtgjE*B{n<pLb70Th`6D18Jm5HS!23<{wE2o)@`0T5{zEewhQ"
    "aR>_i0R(jjEf^^n9t9c*eZ&E^0t_ieB`yTf10WLN0Sp!?48;KoB^<2*2n`}24F;V76xk3683>sH2pI?=1O)^I1O)_r2-N`u9R>vs4Fnwy5eOLs"
    "4mA!44FnwuFc)G77X&^DP6a9i7X&K_2pJYF76dg6h5<Z<0Xzx?5(Nq=1_cfk8U+Rg1_cHY1}zE^78Mc&2I&C`5Z)AIE>!UWx&m3+6M2Fk2!a6w"
    "rUR7+8YL7G1qzt~1O*fY2;l)71qL`_Bpn1D1RVq&1RVq&1RVq&1c3p*0R_4NhyiK@<^nL<252%AwgCwS6&48&1lj@!36=vCt^ox30tC_mFunl<"
    "DS9CWJ%Rx#o&i0A>IStW4Bi1Gxd95b2o7;j%>f1}2F(K+AYLU3odXJi0u%`Z1q2mf*#Qy-3>gv_(E$=5nF1gRDHvf61qQ_d3XuUU26YUD0yYFK"
    "5DI++-2o&y2q_2>T@IxJU=0dE3Kb|B2pI?&Bpn1D1g!xEISLT%0|p5QDHxI60x(?=#Q~6r0=f$bssoq-9WWIXF$OgR6$AwY2?PlQu>(dxtqV$l"
    "0tndw90q^^F%m;67(osRVhs)iP6QGV6$G6G2nPf{DIRGO1qNv@<pK;D2pI?&2n`G#1Rf|43J5U-X#`CK2?RX|Ifw!60~8JrwE+w!<pD+s4g@v~"
    "2D|~b0R@NzbqvJ;JaG__0VH`8tpOBy1O|}-5FrK?r~&x|2q_qm0T7V^5TOAe(E%(5Ed)IT9RvvkEd)IT9RvxC0^JEDStuc383d^T1SOOL83+Xg"
    "u>k}L3<U^X1O|NynE@arzyVDJ2^56^3<hZw27m(L0T59L$pHij6d?o+1a$}v5Gfoc9DN3X0e}G^26+$_9wgZT3?5ksZ4_x75-=UW0;K}n0nGt4"
    "%>f*_0U#-u34H{q0R#yK2no0Xp#dP30Tx(U5|{yTP+cUQ0v-^N0VMGO3I`GeC<h2-94Q#p0R$-$5g?HP3I!yU0um7hH3kI^1W_zW1eF0A1%v_}"
    "1O)^U1U&>P1{m!D6e$=H1R)3s2w4Oj1PKHc1Stp!2n`4Y7zGp^2ptR+tOTtB7AXn@1`&9f0tN*jDVPP>0SF~t8HfRe0uBW%DHt|P<pBm5DcAvR"
    "2t5!n5*_3P?Ewam1I+?3AqWKsAp{8oc?1avB@QGhm;xaPxd8|v1_^Ba0U`w;sR9lK7Br;-oCqZZwE+Yr7ASQL3V8@w1UaMv9Rvvku>lMP1PKHs"
    "ASoCb1PKI{0R#yI85}9t30(@@1qD1+b~Fa*9GC;W0|XW<kp{3*g#!vSy&(iAoPM1W<c$L55gdI4DG&<10t6`-c?cB-DBS@j5eg_N1RVrb6ivVt"
    "-2xJn1FZrO<pCT;fC32y2`mXX;lBYO*(Rs~C7hQ65(FLu3IvV`v;hu85+Jb*kVvfq6g3Pb94QC}2?i7Jk^#8^2wf!71MmUb2PmEa2=W0H4jCgM"
    "3LSb8_5oCi0u2V}1W_>F0whTm37iDg0tB4`1PKTQ2nh%g1Th2!1RVs00t68VAp{)+aRd<r6$Awg9R$$|2xSIk27Lx)27Lx)27Lx)27Lx)1|bN^"
    "0fG?S0TRgpA_Y1H9y}EUJ-{M;ga;i2MF<@P2?Q0?2DJeUIS45b1qOf$eMIR26b67N9Rv{s2?RX^l?Dhwqye!45GfD}#2D=X1`P%gumZIK20e%d"
    "5d>`n2?PZQ1q3Ms5d;MU1sDYo1q1~I1q2NQ2?PZQ1q1~I1q1~I1q2BM1qcxY9Rv{s5d;MUDFj6n4FnYgMbH5XxCpWV5RwBhJ_tSpJ_MElC^d!!"
    "-~o0tvH=h#911uZ=mg>(6haI(4AKKI<^mit5C%Ll5aIzKDj1>xAbJQ2xB}7&Fggep3>FL?Bz6og6dEWh7$P7ZB+di`-T{;WDVQLFw+es(=79km"
    "`UVJ!v;jEA=>hy;`VfdOu9^YZ<*oq-c!L9g1j7fw@Gk"
)

# Four numbers a run of upper-case code points that lie at one distance from their lower case:
# start - previous start, step, number of code points, distance (2 * d, or -2 * d - 1 when negative).
_LOWER_RUNS: Final = (
    "K>->-e*qUj7y$=BC;}J)FaiOM0|EjA0tW&J0ucfi0xkjp@c{t>0|E#F0i*)~0s;aA0s))@0RjO60s#V=0|Ej80s{g8o&f;@0h9v)0s)o-0RjO6"
    "0s;Y=0|5d7o&y2`0j2{10s*1}0RjO61Ofr30|5d7ssjQ70jvW70s{gD0s*uG0RjO60s;ZF0|Np90s;a7v;zSG0RjR60<r@F0s;aA0s*!I0RjO6"
    "1Ofp92m%2F0RjO60s;X90RjO60s;X90RjmE69NeW69NGQ0RjR71OfrU0RaL5Zvg@n0w@9jg8~8q2?7`b0oJGi0RjO60s;ZW0s#U6(5L|e0s#U7"
    "0s(~s0RjPv0RaL5jsXDz1p=x90s;aC0s#UE0s-g&2Lb_10s#X`1Ofqo0RjO6eggp!KoS87Kr8|Q5D5Yd0vrMXcLM?e0s;a74FLiH0s{d9g8~Bq"
    "5TF4N0U$t70ucf#0viH00s$TY0tW&Q0x$w$0VZJY76B%}aVG)+z;Olw0l;z71p!c?-vm$r1`wbT0W1G5Edc}nF2e!>O9Gw&0s;MY0s=4sXaNWh"
    "5CH}c5CI4e5CI4e5CH}c5ds7c4*>`dAOQ#u5CI4e5CI4e5CH-Y0s#V(0RjR65exwYs{sT80TB!V0uKTK0>=Rk0Rj&K0RrCv0s;XI3;_cF0RjO6"
    "`vC$10THSK0s*;o1Ofs5f&l>n0gHhF2Lb^&E&&iABLV>evjzbgG|CPEFkoN;0RjR70qv&&0RjQbI{^X#&8Gna0s{gD0s*(E0RaL5`KJK^0s+0K"
    "0RaL5yQl#I0s#U80s#UE0RsJ~0RjRt0&4;S0tW&C0?zUQ0v7^60uBPA0RjgC5CR_pM*;!@1Ofqvs00B51p*BM0RjR70nd~L0|Ej91_BBK6aoQ<"
    "l?4F;0iBfv0RjP)l?4F;0fChT0RjPsl?4I<0i%=!0RjQjlm!6-0jZP)0RjQQ4gmrP0uTZLUjYIEg_Q*X0s-%+1OWm90to^E0tNyC0v`ea0<5k9"
    "0UAKx2>~cjumJ%iP{08J3r-9H4^9vP2Tlk90#57=0W*LBpcnxlK%lDu0U$uY^#K7QL;"
)


def _numbers(text: str) -> npt.NDArray[np.int64]:
    """Decode a string of base-128 numbers."""
    digits = np.frombuffer(base64.b85decode(text), dtype=np.uint8).astype(np.int64)
    starts = np.flatnonzero(np.concatenate(([True], digits[:-1] < 128)))
    position = np.arange(digits.size) - np.repeat(starts, np.diff(np.append(starts, digits.size)))
    numbers: npt.NDArray[np.int64] = np.add.reduceat((digits & 127) << (7 * position), starts)
    return numbers


@cache
def code_point_table() -> npt.NDArray[np.uint32]:
    """Return the table of all code points, made on the first call and then shared; read-only.

    Returns:
        (1114112,) uint32: the lower-case code point in bits 0-23, the class in bits 24-31.
    """
    runs = _numbers(_CLASS_RUNS)
    classes = np.repeat((runs & 3).astype(np.uint32), runs >> 2)
    table = np.arange(classes.size, dtype=np.uint32)
    start = 0
    for gap, step, number, zigzag in _numbers(_LOWER_RUNS).reshape(-1, 4).tolist():
        start += gap
        table[start : start + step * number : step] += np.uint32(((zigzag >> 1) ^ -(zigzag & 1)) & 0xFFFFFFFF)
    table |= classes << np.uint32(24)
    table.setflags(write=False)
    return table
