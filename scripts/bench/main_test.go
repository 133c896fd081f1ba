package main

import (
	"strings"
	"testing"
)

func TestUsageHasAllParts(t *testing.T) {
	for _, part := range parts {
		if !strings.Contains(usage, "["+part.name+"]") || !strings.Contains(usage, "\n  "+part.name+" ") {
			t.Errorf("part %s is not in the usage", part.name)
		}
	}
	if err := checkParts([]string{"start", "nothing"}); err == nil {
		t.Error("an unknown part is none")
	}
}
