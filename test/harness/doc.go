// Package harness builds grace and the apps of the tests, runs grace, reads its log, and sends load to the app.
//
// The programs are built when a test first needs them. Start runs one grace process, which ends with its test; the tests wait for
// lines of its log, never for some time. UnderLoad runs clients that never retry, and fails the test if one request fails.
package harness
