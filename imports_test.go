package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gracerun/grace"

// mayImport says which packages of the module, and those below them, a package may import. Tests may import more. A
// package without a line follows the nearest one above it; one with none at all fails: where it stands is a decision.
var mayImport = map[string][]string{
	module:                {"cmd"},
	"cmd":                 {"cmd", "supervisor", "handoff", "childproc"},
	"cmd/demo":            {"cmd/fold", "cmd/load", "handoff", "drain", "internal/gracelog", "supervisor/control"},
	"cmd/fold":            {},
	"cmd/load":            {},
	"supervisor":          {"supervisor", "handoff", "childproc"},
	"supervisor/control":  {"supervisor/dirwatch"},
	"supervisor/deadline": {},
	"supervisor/host":     {"supervisor/machine", "supervisor/deadline", "supervisor/dirwatch", "handoff", "childproc", "internal/nap"},
	"supervisor/machine":  {},
	"supervisor/metrics":  {"supervisor/control"},

	"handoff":                  {"handoff/internal"},
	"handoff/steering":         {"handoff/socket", "handoff/sockdiag", "handoff/sibling", "handoff/synfilter", "handoff/internal"},
	"handoff/socket":           {"handoff/sockdiag", "handoff/sibling", "handoff/synfilter", "handoff/internal"},
	"handoff/farewell":         {"handoff/sockdiag", "handoff/sibling", "handoff/internal", "internal/nap"},
	"handoff/internal":         {"handoff/internal"},
	"handoff/internal/apptest": {"internal"},
	"handoff/sibling":          {},
	"handoff/sockdiag":         {},
	"handoff/synfilter":        {},

	"childproc":         {"childproc"},
	"drain":             {"handoff"},
	"drain/grpcdrain":   {"drain"},
	"drain/sse":         {"drain"},
	"examples":          {"handoff", "drain"},
	"internal":          {},
	"scripts":           {"cmd/load"},
	"scripts/bench":     {"cmd/load", "childproc", "internal/gracelog", "internal/hostinfo", "scripts/bench/chart", "scripts/bench/compare"},
	"scripts/bench/app": {"handoff", "drain"},

	"scripts/bench/compare":     {"cmd/load", "internal/cgroup", "internal/hostinfo", "scripts/bench/chart"},
	"scripts/bench/compare/app": {"handoff", "drain"},

	"test":         {},
	"test/harness": {"cmd/load", "childproc", "internal", "supervisor/control"},
}

// Apps import these; one that does takes nothing else into its build but the standard library and x/sys.
var forApps = []string{"handoff", "drain", "drain/sse"}

// modules are the folders of those that apps and grace are built from. An app that does not import grpcdrain does not
// have grpc in its go.mod, nor in its go.sum.
var modules = []string{".", "drain/grpcdrain"}

// portable are the packages that other systems than Linux can build (scripts/test vets them there): what apps import, what
// that needs, and the program that says it cannot run. The rest is for Linux only and has no build tags but those of an architecture.
var portable = []string{".", "./handoff", "./handoff/internal/...", "./drain/..."}

// Files for one system are seen only there.
var otherSystems = []string{"darwin", "freebsd"}

func TestImportsGoOneWay(t *testing.T) {
	for _, dir := range modules {
		for _, p := range listPackages(t, dir, "linux", "./...") {
			mustImportAllowed(t, "linux", p)
		}
	}
}

// A package for Linux only that a portable one imports would take it from the other systems.
func TestPortablePackagesImportNoOthers(t *testing.T) {
	for _, system := range otherSystems {
		packages := listPackages(t, ".", system, portable...)
		main := packages[module]
		if len(main.Imports) == 0 || slices.ContainsFunc(main.Deps, ours) {
			t.Errorf("%s: the program imports %v", system, main.Imports)
		}
		for _, p := range packages {
			if p.ours() && p.ImportPath != module && !isPortable(inModule(p.ImportPath)) {
				t.Errorf("%s: %s is needed by a portable package and is not one", system, p.ImportPath)
			}
			mustImportAllowed(t, system, p)
		}
	}
}

func isPortable(name string) bool {
	return slices.ContainsFunc(portable, func(pattern string) bool {
		above, all := strings.CutSuffix(strings.TrimPrefix(pattern, "./"), "/...")
		return name == above || all && strings.HasPrefix(name, above+"/")
	})
}

func mustImportAllowed(t *testing.T, system string, p listed) {
	t.Helper()
	for _, imported := range p.Imports {
		if p.ours() && ours(imported) && !allowed(t, inModule(p.ImportPath), inModule(imported)) {
			t.Errorf("%s: %s imports %s, which mayImport does not let it", system, p.ImportPath, imported)
		}
	}
}

func TestAppsTakeNoDependencies(t *testing.T) {
	for _, system := range append(otherSystems, "linux") {
		packages := listPackages(t, ".", system, portable...)
		for _, name := range forApps {
			for _, needed := range packages[path.Join(module, name)].Deps {
				if p := packages[needed]; !p.Standard && !p.ours() && !strings.HasPrefix(needed, "golang.org/x/sys/") {
					t.Errorf("%s: %s needs %s", system, name, needed)
				}
			}
		}
	}
}

func TestGRPCIsNotInTheMainModule(t *testing.T) {
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), "google.golang.org/grpc ") {
			t.Errorf("%s names grpc: whatever needs it belongs to drain/grpcdrain or docs/examples", file)
		}
	}
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		want               bool
	}{
		{"cmd", "supervisor", true},
		{"cmd", "drain", false},
		{"supervisor", "supervisor/control", true},
		{"supervisor", "cmd", false},
		{"handoff", "childproc", false},
		{"childproc", "handoff", false},
		{"childproc/capture", "handoff", false},
		{"examples/web", "drain", true},
	} {
		if got := allowed(t, c.importer, c.imported); got != c.want {
			t.Errorf("%s importing %s: allowed is %v", c.importer, c.imported, got)
		}
	}
}

func allowed(t *testing.T, importer, imported string) bool {
	above := importer
	for above != "." && mayImport[above] == nil {
		above = path.Dir(above)
	}
	if above == "." {
		t.Fatalf("mayImport has no line for %s", importer)
	}
	return slices.ContainsFunc(mayImport[above], func(may string) bool {
		return imported == may || strings.HasPrefix(imported, may+"/")
	})
}

// listed is what go list says of a package.
type listed struct {
	ImportPath    string
	Standard      bool
	Imports, Deps []string
}

func (p listed) ours() bool { return ours(p.ImportPath) }

func ours(importPath string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}

func inModule(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

// listPackages returns the packages that patterns in a module's folder name, and all that those need, by import path.
func listPackages(t *testing.T, dir, system string, patterns ...string) map[string]listed {
	t.Helper()
	list := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Standard,Imports,Deps"}, patterns...)...)
	list.Dir = dir
	list.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string]listed{}
	for all := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := all.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	if name := path.Join(module, dir); packages[name].ImportPath == "" {
		t.Fatalf("go list did not list %s but %v", name, slices.Sorted(maps.Keys(packages)))
	}
	return packages
}
