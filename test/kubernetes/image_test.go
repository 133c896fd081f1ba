package kubernetes

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// The first image is that of deployment.yaml. The app of the broken one never serves.
const (
	firstImage  = "example/app:1.0.0"
	nextImage   = "example/app:1.0.1"
	brokenImage = "example/app:1.0.2"
	pauseImage  = "grace.test/pause:1"
)

// makeImages makes what docs/containers/Dockerfile describes, with the test's app in it, and an image for pods.
func makeImages(t *testing.T) (files []string) {
	t.Helper()
	pause := image{t: t, name: pauseImage}
	pause.program("pause", "pause")
	files = append(files, pause.write(map[string]any{"Entrypoint": []string{"/pause"}}))
	for name, app := range map[string]string{firstImage: "app", nextImage: "app", brokenImage: "pause"} {
		i := image{t: t, name: "docker.io/" + name}
		i.program("grace", "grace")
		i.program("app", app)
		i.program("plain", "plain")
		i.add("site/version", 0o644, []byte(name))
		files = append(files, i.write(map[string]any{
			"User": "65532:65532", "WorkingDir": "/site", "Entrypoint": []string{"/grace", "run"},
			"Cmd": []string{"--listen", ":8080", "--drain-timeout", "8s", "--", "/app"},
		}))
	}
	return files
}

// image has one layer.
type image struct {
	t     *testing.T
	name  string
	files []archived
}

type archived struct {
	name string
	mode int64
	text []byte
}

func (i *image) add(name string, mode int64, text []byte) {
	i.files = append(i.files, archived{name, mode, text})
}

func (i *image) program(name, from string) {
	i.t.Helper()
	text, err := os.ReadFile(program(from))
	if err != nil {
		i.t.Fatal(err)
	}
	i.add(name, 0o755, text)
}

// write makes an archive as docker save does, which containerd imports.
func (i *image) write(config map[string]any) string {
	i.t.Helper()
	layer := i.archive(i.files)
	sum := sha256.Sum256(layer)
	about := i.encode(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	manifest := i.encode([]map[string]any{{"Config": "config.json", "RepoTags": []string{i.name}, "Layers": []string{"layer.tar"}}})
	whole := i.archive([]archived{{"config.json", 0o644, about}, {"layer.tar", 0o644, layer}, {"manifest.json", 0o644, manifest}})
	return mustWrite(i.t, filepath.Join(shared, "images", filepath.Base(i.name)+".tar"), string(whole))
}

func (i *image) encode(object any) []byte {
	i.t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

func (i *image) archive(files []archived) []byte {
	i.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.text))}); err != nil {
			i.t.Fatal(err)
		}
		if _, err := w.Write(f.text); err != nil {
			i.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		i.t.Fatal(err)
	}
	return b.Bytes()
}
