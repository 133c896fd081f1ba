#include "textflag.h"

// Addresses as in list.go.
#define BASE 0x1000000000
#define REPORT 0(R19)
#define WHOLE 16(R19)
#define FIRST_CALL 24(R19)
#define CONNECTION 32(R19)

// A system call's number is in R8, its result in R0; it keeps all other registers (arch/arm64/kernel/entry.S).
TEXT ·stub(SB), NOSPLIT|NOFRAME, $0-0
	MOVD $BASE, R19
	MOVD $0, R20                 // bytes of the list that are there

more:
	MOVD $24, R21                // bytes that are wanted: the head, then all
	CMP  R21, R20
	BLO  receive
	MOVD WHOLE, R21
	CMP  R21, R20
	BHS  begin

receive:
	MOVD $0, R0                  // stdin
	ADD  $16, R19, R1
	ADD  R20, R1
	SUB  R20, R21, R2
	MOVD $63, R8                 // read
	SVC
	CMP  $0, R0
	BLE  exit
	ADD  R0, R20
	B    more

begin:
	ADD  $16, R19, R22
	ADD  R21, R22                // the end
	MOVD FIRST_CALL, R21             // the call
	MOVD $0, R20                 // its index

each:
	CMP  R22, R21
	BHS  exit
	MOVD 0(R21), R8
	MOVD 8(R21), R0
	MOVD 16(R21), R1
	MOVD 24(R21), R2
	MOVD 32(R21), R3
	MOVD 40(R21), R4
	MOVD 48(R21), R5
	SVC
	CMN  $4095, R0
	BHS  failed
	MOVD 56(R21), R9
	CBZ  R9, stored
	MOVD R0, (R9)

stored:
	MOVD 64(R21), R9
	CBZ  R9, done
	MOVD $10, R10
	MOVD R0, R11

count:
	ADD  $1, R9                  // the end of the digits
	UDIV R10, R11, R11
	CBNZ R11, count

digit:
	UDIV R10, R0, R11
	MSUB R10, R0, R11, R12       // R0 - R11*R10
	ADD  $48, R12
	SUB  $1, R9
	MOVB R12, (R9)
	MOVD R11, R0
	CBNZ R0, digit

done:
	ADD  $72, R21
	ADD  $1, R20
	B    each

failed:
	NEG  R0, R0
	MOVD R20, REPORT
	MOVD R0, 8(R19)
	MOVD CONNECTION, R0
	MOVD R19, R1
	MOVD $16, R2
	MOVD $64, R8                 // write
	SVC

exit:
	MOVD $126, R0
	MOVD $94, R8                 // exit_group
	SVC
	WORD $0x646e65f0
	WORD $0x646e65f1

// func stubCode() uintptr
TEXT ·stubCode(SB), NOSPLIT, $0-8
	MOVD $·stub(SB), R0
	MOVD R0, ret+0(FP)
	RET
