#include "textflag.h"

// Addresses as in list.go.
#define BASE 0x1000000000
#define REPORT 0(R15)
#define WHOLE 16(R15)
#define FIRST_CALL 24(R15)
#define CONNECTION 32(R15)

// System calls clobber RCX and R11 beside their result in RAX (syscall(2)).
TEXT ·stub(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ $BASE, R15
	XORL R14, R14                // bytes of the list that are there

more:
	MOVL $24, R13                // bytes that are wanted: the head, then all
	CMPQ R14, R13
	JCS  receive
	MOVQ WHOLE, R13
	CMPQ R14, R13
	JCC  begin

receive:
	XORL DI, DI                  // stdin
	LEAQ 16(R15)(R14*1), SI
	MOVQ R13, DX
	SUBQ R14, DX
	XORL AX, AX                  // read
	SYSCALL
	TESTQ AX, AX
	JLE  exit
	ADDQ AX, R14
	JMP  more

begin:
	LEAQ 16(R15)(R13*1), R13     // the end
	MOVQ FIRST_CALL, R12             // the call
	XORL R14, R14                // its index

each:
	CMPQ R12, R13
	JCC  exit
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  failed
	MOVQ 56(R12), CX
	TESTQ CX, CX
	JEQ  stored
	MOVQ AX, (CX)

stored:
	MOVQ 64(R12), DI
	TESTQ DI, DI
	JEQ  done
	MOVQ AX, SI
	MOVL $10, R8

count:
	INCQ DI                      // the end of the digits
	XORL DX, DX
	DIVQ R8
	TESTQ AX, AX
	JNE  count

digit:
	MOVQ SI, AX
	XORL DX, DX
	DIVQ R8
	MOVQ AX, SI
	ADDL $48, DX
	DECQ DI
	MOVB DX, (DI)
	TESTQ SI, SI
	JNE  digit

done:
	ADDQ $72, R12
	INCQ R14
	JMP  each

failed:
	NEGQ AX
	MOVQ R14, REPORT
	MOVQ AX, 8(R15)
	MOVQ CONNECTION, DI
	LEAQ REPORT, SI
	MOVL $16, DX
	MOVL $1, AX                  // write
	SYSCALL

exit:
	MOVL $126, DI
	MOVL $231, AX                // exit_group
	SYSCALL
	BYTE $0xf0; BYTE $'e'; BYTE $'n'; BYTE $'d'
	BYTE $0xf1; BYTE $'e'; BYTE $'n'; BYTE $'d'

// func stubCode() uintptr
TEXT ·stubCode(SB), NOSPLIT, $0-8
	LEAQ ·stub(SB), AX
	MOVQ AX, ret+0(FP)
	RET
