package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// writeBill is the bill of materials (SBOM) of one program, in the format of CycloneDX: the modules that the linker has put into it, and Go.
func writeBill(to string, p program, at time.Time) error {
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("cannot write the bill of materials: %w", err)
	}
	encoder := cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON).SetPretty(true)
	if err := errors.Join(encoder.Encode(bill(p, at)), out.Close()); err != nil {
		return fmt.Errorf("cannot write the bill of materials %s: %w", to, err)
	}
	return nil
}

func bill(p program, at time.Time) *cyclonedx.BOM {
	main := component(&p.build.Main, cyclonedx.ComponentTypeApplication)
	main.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}}
	components := []cyclonedx.Component{standardLibrary(p.build.GoVersion)}
	for _, module := range p.build.Deps {
		components = append(components, component(module, cyclonedx.ComponentTypeLibrary))
	}
	dependencies := []cyclonedx.Dependency{{Ref: main.BOMRef, Dependencies: references(components)}}
	b := cyclonedx.NewBOM()
	b.Metadata = &cyclonedx.Metadata{Timestamp: at.Format(time.RFC3339), Component: &main}
	b.Components, b.Dependencies = &components, &dependencies
	return b
}

func references(components []cyclonedx.Component) *[]string {
	var refs []string
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	return &refs
}

func component(m *debug.Module, kind cyclonedx.ComponentType) cyclonedx.Component {
	for m.Replace != nil {
		m = m.Replace
	}
	url := "pkg:golang/" + m.Path + "@" + m.Version
	c := cyclonedx.Component{BOMRef: url, Type: kind, Name: m.Path, Version: m.Version, PackageURL: url, Scope: cyclonedx.ScopeRequired}
	if sum := sumOf(m); sum != "" {
		c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}}
	}
	return c
}

// sumOf is the SHA-256 of go.sum ("h1:", of the hashes of a module's files), in hexadecimal digits.
func sumOf(m *debug.Module) string {
	text, found := strings.CutPrefix(m.Sum, "h1:")
	sum, err := base64.StdEncoding.DecodeString(text)
	if !found || err != nil {
		return "" // the main module has none
	}
	return hex.EncodeToString(sum)
}

func standardLibrary(version string) cyclonedx.Component {
	version = strings.TrimPrefix(version, "go")
	url := "pkg:golang/std@" + version
	return cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: version, PackageURL: url, Scope: cyclonedx.ScopeRequired}
}
