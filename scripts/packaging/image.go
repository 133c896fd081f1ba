package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeImage makes an OCI image layout with one image for each architecture, in a tar file: docker load, podman load and skopeo read it. It
// has grace alone, to be copied into other images (COPY --from) or to run what is mounted.
func writeImage(to string, s sources, programs []program) (err error) {
	dir, err := os.MkdirTemp("", "grace-image-")
	if err != nil {
		return fmt.Errorf("cannot write the image: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		image, err := p.image(s.committed)
		if err != nil {
			return fmt.Errorf("cannot make the image of %s: %w", p.architecture, err)
		}
		platform := v1.Platform{OS: "linux", Architecture: p.architecture}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": programs[0].version()}))
	}
	if err != nil {
		return fmt.Errorf("cannot write the image: %w", err)
	}
	return tarFolder(to, dir, s.committed)
}

// image has one layer with one file. Nobody is named: who runs grace decides as whom.
func (p program) image(at time.Time) (v1.Image, error) {
	binary, err := os.ReadFile(p.path)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	if err := writeTar(&layer, []file{{"/grace", 0o755, binary}}, at); err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	compressed, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(base, compressed)
	if err != nil {
		return nil, err
	}
	configured, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	configured.OS, configured.Architecture, configured.Created = "linux", p.architecture, v1.Time{Time: at}
	configured.Config = v1.Config{Entrypoint: []string{"/grace"}, Cmd: []string{"--help"}, Labels: p.labels()}
	return mutate.ConfigFile(image, configured)
}

func (p program) labels() map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":    "grace",
		"org.opencontainers.image.source":   "https://github.com/gracerun/grace",
		"org.opencontainers.image.version":  p.version(),
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	for _, s := range p.build.Settings {
		if s.Key == "vcs.revision" {
			labels["org.opencontainers.image.revision"] = s.Value
		}
	}
	return labels
}

func tarFolder(to, dir string, at time.Time) error {
	var files []file
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files = append(files, file{strings.TrimPrefix(path, dir), 0o644, text})
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot write the image: %w", err)
	}
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("cannot write the image: %w", err)
	}
	if err := errors.Join(writeTar(out, files, at), out.Close()); err != nil {
		return fmt.Errorf("cannot write the image %s: %w", to, err)
	}
	return nil
}
