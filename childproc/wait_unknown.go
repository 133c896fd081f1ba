//go:build !(amd64 || arm64 || riscv64 || loong64)

package childproc

func waitOf(uint64) wait { return onUnknown }
