package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// writeArchive is for machines without a package manager: unpack it in /.
func writeArchive(to string, files []file, at time.Time) error {
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("cannot write the archive: %w", err)
	}
	w, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err == nil {
		err = errors.Join(writeTar(w, files, at), w.Close())
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("cannot write the archive %s: %w", to, err)
	}
	return nil
}

// writeTar writes the files in the order of their paths, with their folders, as root's.
func writeTar(w io.Writer, files []file, at time.Time) error {
	t := tar.NewWriter(w)
	made := map[string]bool{".": true}
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b file) int { return cmp.Compare(a.path, b.path) }) {
		name := strings.TrimPrefix(f.path, "/")
		for _, dir := range foldersOf(name) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at}); err != nil {
				return err
			}
		}
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: int64(f.mode), Size: int64(len(f.text)), ModTime: at}); err != nil {
			return err
		}
		if _, err := io.Copy(t, bytes.NewReader(f.text)); err != nil {
			return err
		}
	}
	return t.Close()
}

// foldersOf begins with the outermost.
func foldersOf(name string) (dirs []string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}
