// Package containers has only tests, which check the manifests and the playbook of this folder.
package containers
