package vault

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(proxiedAddress); address != "" {
		askThroughTheProxy(address)
		return
	}
	goleak.VerifyTestMain(m)
}
