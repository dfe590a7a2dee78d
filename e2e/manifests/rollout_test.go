package manifests_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Each pod with wrong credentials spends a login, and Vault locks the role after five.
func TestThePageSaysHowManyPodsARolloutStartsAtOnce(t *testing.T) {
	t.Parallel()
	const recommended = "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}"
	for name, test := range map[string]struct {
		strategy, said string
		pods           int
	}{
		"by default":     {"strategy: {}", "a Deployment of 10 replicas starts 5 pods at once", 5},
		"as recommended": {recommended, "`" + recommended + "`", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			worker := "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 10, " +
				test.strategy + "}\n"
			if pods := atOnce(t, only[*appsv1.Deployment](t,
				mustDecode(t, []byte(worker)))); pods != test.pods {
				t.Errorf("it starts %d pods at once, not %d", pods, test.pods)
			}
			if !strings.Contains(kubernetesPage(t), test.said) {
				t.Errorf("the page does not say %q", test.said)
			}
		})
	}
}

// atOnce is how many pods of a new kind a Deployment starts before one of them is ready.
func atOnce(t *testing.T, d *appsv1.Deployment) int {
	t.Helper()
	update := d.Spec.Strategy.RollingUpdate
	surge, err := intstr.GetScaledValueFromIntOrPercent(update.MaxSurge, int(*d.Spec.Replicas),
		true)
	if err != nil {
		t.Fatal(err)
	}
	unavailable, err := intstr.GetScaledValueFromIntOrPercent(update.MaxUnavailable,
		int(*d.Spec.Replicas), false)
	if err != nil {
		t.Fatal(err)
	}
	return surge + unavailable
}
