// Package filewatch reports changes of files, for development.
package filewatch
