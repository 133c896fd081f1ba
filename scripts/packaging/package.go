package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

const description = `process supervisor that replaces a running server without losing a request
grace holds the listening sockets of a server, starts its new version on SIGHUP, hands it the
sockets, waits until it serves, and then lets the old version finish and exit.`

// reload has systemd read the unit files of an update. The installed program is not that of the grace processes which run: they go
// on, and "grace reexec" replaces them.
const reload = `#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
`

// writePackage makes a package of format "deb" or "rpm", with the name that the tools of that format expect.
func writePackage(out, format string, p program, installed []file, at time.Time) (err error) {
	dir, err := os.MkdirTemp("", "grace-package-") // nfpm reads files
	if err != nil {
		return fmt.Errorf("cannot write the package: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	info, err := describe(dir, p, installed, at)
	if err != nil {
		return err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return fmt.Errorf("cannot write the package: %w", err)
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return fmt.Errorf("cannot write the package: %w", err)
	}
	to, err := os.Create(filepath.Join(out, packager.ConventionalFileName(info)))
	if err != nil {
		return fmt.Errorf("cannot write the package: %w", err)
	}
	if err := errors.Join(packager.Package(info, to), to.Close()); err != nil {
		return fmt.Errorf("cannot write the package %s: %w", to.Name(), err)
	}
	return nil
}

func describe(dir string, p program, installed []file, at time.Time) (*nfpm.Info, error) {
	script := filepath.Join(dir, "reload")
	if err := os.WriteFile(script, []byte(reload), 0o755); err != nil {
		return nil, fmt.Errorf("cannot write the package: %w", err)
	}
	contents, err := contentsOf(dir, installed, at)
	if err != nil {
		return nil, err
	}
	return nfpm.WithDefaults(&nfpm.Info{
		Name: "grace", Arch: p.architecture, Platform: "linux", Version: p.version(), VersionSchema: "semver",
		Section: "admin", Priority: "optional", Maintainer: "the grace maintainers <maintainers@users.noreply.github.com>",
		Description: description, Homepage: "https://github.com/gracerun/grace", License: "Apache-2.0", MTime: at,
		Overridables: nfpm.Overridables{
			Contents: contents,
			Scripts:  nfpm.Scripts{PostInstall: script, PostRemove: script},
			RPM:      nfpm.RPM{Group: "System Environment/Daemons", Compression: "gzip", BuildHost: "grace"},
		},
	}), nil
}

func contentsOf(dir string, installed []file, at time.Time) (all files.Contents, err error) {
	for n, f := range installed {
		source := filepath.Join(dir, strconv.Itoa(n))
		if err := os.WriteFile(source, f.text, 0o644); err != nil {
			return nil, fmt.Errorf("cannot write the package: %w", err)
		}
		all = append(all, &files.Content{Source: source, Destination: f.path, FileInfo: &files.ContentFileInfo{Mode: f.mode, MTime: at, Owner: "root", Group: "root"}})
	}
	return append(all, &files.Content{Destination: "/etc/grace", Type: files.TypeDir, FileInfo: &files.ContentFileInfo{Mode: 0o755, MTime: at}}), nil
}
