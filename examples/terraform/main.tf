# A configuration whose state is kept by Leasehold. It needs no provider and no account.
#
#   terraform init -backend-config=address=http://localhost:8080/terraform/example \
#     -backend-config=lock_address=http://localhost:8080/terraform/example \
#     -backend-config=unlock_address=http://localhost:8080/terraform/example
#   terraform apply -var=release=1.1
#
# `tofu` works in the same way.

terraform {
  backend "http" {} # the addresses are in the command, so that each environment can have a state of its own
}

variable "release" {
  type    = string
  default = "1.0"
}

resource "terraform_data" "release" {
  input = var.release
}

output "release" {
  value = terraform_data.release.output
}
