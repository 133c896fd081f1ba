package handoff

import "testing"

func TestMain(m *testing.M) { playRole(m) }
