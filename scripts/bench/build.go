package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build makes the programs that are measured in a folder that the caller removes.
func build(dir string) bench {
	b := bench{filepath.Join(dir, "grace"), filepath.Join(dir, "app"), new(summary)}
	for path, source := range map[string]string{b.grace: module, b.app: module + "/scripts/bench/app"} {
		compile := exec.Command("go", "build", "-o", path, source)
		compile.Env = append(os.Environ(), "CGO_ENABLED=0") // as grace is released
		if out, err := compile.CombinedOutput(); err != nil {
			check(fmt.Errorf("cannot build %s: %w\n%s", source, err, out))
		}
	}
	return b
}

const module = "github.com/gracerun/grace"

// middleware shows what the benchmark of drain's middleware prints.
func (bench) middleware() {
	test := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkHandler$", "-cpu", "1,2", "-count", "5", module+"/drain")
	out, err := test.CombinedOutput()
	if err != nil {
		check(fmt.Errorf("%w\n%s", err, out))
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "Benchmark") {
			fmt.Print(line)
		}
	}
}
