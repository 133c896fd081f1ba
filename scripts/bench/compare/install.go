package compare

import (
	"fmt"
	"github.com/gracerun/grace/scripts/bench/chart"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// install gets the programs that are missing, and leaves out the tools that cannot be had.
func install(some []tool) ([]tool, error) {
	if err := installDebian(missing(some)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	var have []tool
	for _, t := range some {
		if err := t.available(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: without %s: %v\n", t.name, err)
			continue
		}
		have = append(have, t)
	}
	return have, nil
}

// missing are Debian packages.
func missing(some []tool) []string {
	var packages []string
	for _, t := range some {
		for _, n := range t.needs {
			if _, err := exec.LookPath(n.program); err != nil {
				packages = append(packages, n.debian)
			}
		}
	}
	return packages
}

// installDebian uses what installs the packages of the tests: it starts no daemon.
func installDebian(packages []string) error {
	if len(packages) == 0 {
		return nil
	}
	root, err := chart.Sources()
	if err != nil {
		return err
	}
	script := filepath.Join(root, "scripts", "install")
	fmt.Fprintln(os.Stderr, "installing", strings.Join(packages, " "))
	if out, err := exec.Command(script, packages...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot install %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// available says why a tool cannot be measured.
func (t tool) available() error {
	for _, n := range t.needs {
		if _, err := exec.LookPath(n.program); err != nil {
			return fmt.Errorf("%w (Debian's package %s)", err, n.debian)
		}
	}
	if t.prepare == nil {
		return nil
	}
	return t.prepare()
}

// installPm2 uses npm, once.
func installPm2() error {
	folder, err := pm2Folder()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules", ".bin", "pm2")); err == nil {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("npm", "install", "--no-audit", "--no-fund", "--prefix", folder, "pm2").CombinedOutput(); err != nil {
		return fmt.Errorf("cannot install pm2: %w\n%s", err, out)
	}
	return nil
}
