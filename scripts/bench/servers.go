package main

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// server is one that knows nothing of grace. In its command and files ADDRESS, PORT and FOLDER stand for what they say, and
// CACHE for a folder that stays.
type server struct {
	name    string
	command []string
	stop    syscall.Signal // on which it finishes its requests, where that is not TERM
	prepare []string       // what has to run before, in FOLDER/name
}

const thousands = "16000" // connections that servers with a limit have to allow

var servers = []server{
	{name: "go", command: []string{"FOLDER/plain", "ADDRESS"}, prepare: []string{"go", "build", "-o", "FOLDER/plain", module + "/scripts/bench/plain"}},
	{name: "node", command: []string{"node", "FOLDER/express/server.js", "PORT"}, prepare: []string{"npm", "install", "--no-audit", "--no-fund", "--prefix", "FOLDER/express"}},
	{name: "python", command: []string{"python3", "FOLDER/server.py", "PORT"}},
	{name: "gunicorn", command: []string{"gunicorn", "--chdir", "FOLDER", "-b", "ADDRESS", "-k", "gthread", "-w", "2", "--threads", "8",
		"--worker-connections", thousands, "--keep-alive", "600", "--backlog", "4096", "--log-level", "error", "wsgi:app"}},
	{name: "uvicorn", command: []string{"uvicorn", "--app-dir", "FOLDER", "--host", "127.0.0.1", "--port", "PORT", "--log-level", "error",
		"--timeout-keep-alive", "600", "--backlog", "4096", "asgi:app"}},
	{name: "nginx", command: []string{"nginx", "-p", "FOLDER", "-e", "stderr", "-c", "nginx.conf"}, stop: syscall.SIGQUIT},
	{name: "caddy", command: []string{"caddy", "run", "--adapter", "caddyfile", "--config", "FOLDER/Caddyfile"}},
	{name: "lighttpd", command: []string{"lighttpd", "-D", "-f", "FOLDER/lighttpd.conf"}, stop: syscall.SIGINT},
	{name: "apache2", command: []string{"apache2", "-D", "FOREGROUND", "-f", "FOLDER/apache2.conf"}, stop: syscall.SIGWINCH},
	{name: "puma", command: []string{"puma", "-b", "tcp://ADDRESS", "-t", "8:8", "--dir", "FOLDER", "--silent", "FOLDER/config.ru"}},
	// It keeps 200 idle connections otherwise, and closes others all the time.
	{name: "java", command: []string{"java", "-Dsun.net.httpserver.maxIdleConnections=" + thousands, "-cp", "FOLDER", "Http", "PORT"},
		prepare: []string{"javac", "-d", "FOLDER", "FOLDER/Http.java"}},
	{name: "hyper", command: []string{"CACHE/hyper/release/app", "ADDRESS"}, prepare: []string{"cargo", "build", "--release", "--offline", "--target-dir", "CACHE/hyper"}},
}

func (s server) stopSignal() syscall.Signal { return cmp.Or(s.stop, syscall.SIGTERM) }

//go:embed all:servers
var serverFiles embed.FS

// install prepares a server in a folder of its own, and says what its command is there.
func (s server) install(folder, address string) (command []string, err error) {
	files, err := fs.Sub(serverFiles, "servers")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("ADDRESS", address, "PORT", port, "FOLDER", folder, "CACHE", filepath.Join(cache, "grace-bench"))
	if err := copyFilled(files, folder, fill); err != nil {
		return nil, err
	}
	if len(s.prepare) > 0 {
		if err := runIn(filepath.Join(folder, s.name), filled(s.prepare, fill)); err != nil {
			return nil, err
		}
	}
	command = filled(s.command, fill)
	if _, err := exec.LookPath(command[0]); err != nil {
		return nil, fmt.Errorf("%s is not installed: %w", s.name, err)
	}
	return command, nil
}

// copyFilled makes files that other users can read: some servers change to one.
func copyFilled(files fs.FS, folder string, fill *strings.Replacer) error {
	walk := func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(folder, path)
		if entry.IsDir() {
			return errors.Join(os.MkdirAll(to, 0o755), os.Chmod(to, 0o755))
		}
		text, err := fs.ReadFile(files, path)
		return errors.Join(err, os.WriteFile(to, []byte(fill.Replace(string(text))), 0o644))
	}
	return fs.WalkDir(files, ".", walk)
}

func filled(words []string, fill *strings.Replacer) []string {
	filled := slices.Clone(words)
	for i := range filled {
		filled[i] = fill.Replace(filled[i])
	}
	return filled
}

// runIn takes the folder where there is one.
func runIn(folder string, command []string) error {
	c := exec.Command(command[0], command[1:]...)
	if _, err := os.Stat(folder); err == nil {
		c.Dir = folder
	}
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	return nil
}

// chosen are the servers of a list of names.
func chosen(names string) ([]server, error) {
	var some []server
	var known []string
	for _, s := range servers {
		known = append(known, s.name)
	}
	switch names {
	case "all":
		return servers, nil
	case "none":
		return nil, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		n := slices.Index(known, name)
		if n < 0 {
			return nil, fmt.Errorf("there is no server %q (have %s)", name, strings.Join(known, ", "))
		}
		some = append(some, servers[n])
	}
	return some, nil
}
