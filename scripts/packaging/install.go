package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one that a package installs.
type file struct {
	path string // where it is to be
	mode fs.FileMode
	text []byte
}

// install gives what belongs on a machine with grace.
func (s sources) install(p program) ([]file, error) {
	binary, err := os.ReadFile(p.path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the program that was built: %w", err)
	}
	files := []file{{"/usr/bin/grace", 0o755, binary}}
	for _, more := range []func(program) ([]file, error){s.documents, s.units, manual, completions} {
		found, err := more(p)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

func (s sources) read(path string) ([]byte, error) { return os.ReadFile(filepath.Join(s.dir, path)) }

func (s sources) documents(program) (files []file, err error) {
	for from, to := range map[string]string{"LICENSE": "copyright", "README.md": "README.md", "CHANGELOG.md": "CHANGELOG.md", "docs/alerts.yml": "alerts.yml", "docs/grafana.json": "grafana.json"} {
		text, err := s.read(from)
		if err != nil {
			return nil, fmt.Errorf("cannot package the documents: %w", err)
		}
		files = append(files, file{"/usr/share/doc/grace/" + to, 0o644, text})
	}
	return files, nil
}

// units are those of docs/systemd, for a program that a package has installed.
func (s sources) units(program) (files []file, err error) {
	for _, name := range []string{"grace@.service", "grace@.socket"} {
		text, err := s.read("docs/systemd/" + name)
		if err != nil {
			return nil, fmt.Errorf("cannot package the unit files: %w", err)
		}
		text = bytes.ReplaceAll(text, []byte("/usr/local/bin/grace"), []byte("/usr/bin/grace"))
		files = append(files, file{"/usr/lib/systemd/system/" + name, 0o644, text})
	}
	return files, nil
}

// manual has the program write its pages, as the reference does.
func manual(p program) (files []file, err error) {
	dir, err := os.MkdirTemp("", "grace-manual-")
	if err != nil {
		return nil, fmt.Errorf("cannot write the manual pages: %w", err)
	}
	defer os.RemoveAll(dir)
	if _, err := run(dir, nil, p.here, "man", dir); err != nil {
		return nil, err
	}
	pages, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the manual pages: %w", err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(dir, page.Name()))
		if err != nil {
			return nil, fmt.Errorf("cannot read the manual pages: %w", err)
		}
		text, err = compressed(text)
		if err != nil {
			return nil, err
		}
		files = append(files, file{"/usr/share/man/man1/" + page.Name() + ".gz", 0o644, text})
	}
	return files, nil
}

// compressed has no time and no name in it, so that it is the same each time.
func compressed(text []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("cannot compress: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("cannot compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("cannot compress: %w", err)
	}
	return b.Bytes(), nil
}

// completions are where each shell looks for those of packages.
func completions(p program) (files []file, err error) {
	for shell, path := range map[string]string{
		"bash": "/usr/share/bash-completion/completions/grace",
		"zsh":  "/usr/share/zsh/site-functions/_grace",
		"fish": "/usr/share/fish/vendor_completions.d/grace.fish",
	} {
		text, err := run(filepath.Dir(p.here), nil, p.here, "completion", shell)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path, 0o644, []byte(strings.TrimSpace(text) + "\n")})
	}
	return files, nil
}
