// Figures counts what there is to read: lines, functions and exported names by package.
//
//	go run ./scripts/figures         this module
//	go run ./scripts/figures DIR     another checkout
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// figures are those of one package, its tests apart.
type figures struct {
	files, lines, testLines, exported int
	functions                         []int // lines of each
}

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	packages, err := count(root)
	if err == nil {
		err = show(root, packages)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

// count leaves out hidden folders and testdata.
func count(root string) (map[string]*figures, error) {
	packages := map[string]*figures{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if packages[folder] == nil {
			packages[folder] = &figures{}
		}
		return packages[folder].add(path)
	})
	return packages, err
}

func (f *figures) add(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bytes.Count(text, []byte("\n"))
	if strings.HasSuffix(path, "_test.go") {
		f.testLines += lines
		return nil
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f.files++
	f.lines += lines
	for _, decl := range file.Decls {
		f.declare(set, decl)
	}
	return nil
}

func (f *figures) declare(set *token.FileSet, decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		f.functions = append(f.functions, set.Position(d.End()).Line-set.Position(d.Pos()).Line+1)
		if d.Recv == nil {
			f.name(d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				f.name(s.Name)
			case *ast.ValueSpec:
				for _, name := range s.Names {
					f.name(name)
				}
			}
		}
	}
}

func (f *figures) name(name *ast.Ident) {
	if name.IsExported() {
		f.exported++
	}
}

func show(root string, packages map[string]*figures) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "files\tlines\ttest lines\tfunctions\tmedian\tlongest\texported\t")
	var all figures
	largest, of := "", 0
	for _, folder := range slices.Sorted(maps.Keys(packages)) {
		f := packages[folder]
		f.show(table, folder)
		all.files, all.lines, all.testLines, all.exported = all.files+f.files, all.lines+f.lines, all.testLines+f.testLines, all.exported+f.exported
		all.functions = append(all.functions, f.functions...)
		if f.lines > of {
			largest, of = folder, f.lines
		}
	}
	all.show(table, "all")
	if err := table.Flush(); err != nil {
		return err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	top := slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() || !strings.HasSuffix(e.Name(), ".go") })
	fmt.Printf("largest package: %s, %d lines; Go files in the top folder: %d\n", largest, of, len(top))
	return nil
}

func (f *figures) show(table *tabwriter.Writer, name string) {
	slices.Sort(f.functions)
	median, longest := 0, 0
	if n := len(f.functions); n > 0 {
		median, longest = f.functions[n/2], f.functions[n-1]
	}
	fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t %s\n", f.files, f.lines, f.testLines, len(f.functions), median, longest, f.exported, name)
}
