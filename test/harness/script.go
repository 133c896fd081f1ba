package harness

import (
	"path/filepath"
	"testing"
)

func StartScript(t *testing.T, script string, flags ...string) *Grace {
	t.Helper()
	program := Write(t, t.TempDir(), "wrapper", "#!/bin/bash\nAPP="+AppBinary()+"\n"+script, 0o755)
	return Start(t, append(flags, "--", program)...)
}

// AppScript writes a shell program that runs the app with the arguments found in a
// file beside it, so that a test can change the next generation.
func AppScript(t *testing.T, dir string) (program, arguments string) {
	t.Helper()
	arguments = filepath.Join(dir, "arguments")
	return Write(t, dir, "program", "#!/bin/sh\nexec "+AppBinary()+" $(cat "+arguments+" 2>/dev/null)\n", 0o755), arguments
}
