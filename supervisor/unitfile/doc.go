// Package unitfile writes the systemd unit of one command line of grace run. docs/systemd/grace@.service is its
// pattern, which a test holds it to.
package unitfile
